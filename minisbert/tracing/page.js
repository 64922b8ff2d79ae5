"use strict";
/* The data, for each sentence "a" and "b":
     tokens              their names
     scores              int16 [layers, heads, tokens, tokens], q·k / √d; `steps` of each layer times `values`
     bias                int16 [1, heads, tokens, tokens], what is added to them; not for every model
     queries, keys       int8 [layers, heads, tokens, d]; not for long sentences
     attention           uint8 [layers, tokens, tokens], of long sentences: weight × 255, average of the heads
   and pairs             float32 [tokens of a, tokens of b], what each pair adds to the cosine */
document.documentElement.classList.add("js");
const data = JSON.parse(document.getElementById("data").textContent);
const bytes = (text) => Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
const svg = (name, attributes) => {
  const element = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const key in attributes) element.setAttribute(key, attributes[key]);
  return element;
};
const html = (name, text = "", kind = "") => {
  const element = document.createElement(name);
  element.textContent = text;
  if (kind) element.className = kind;
  return element;
};
const percent = (weight) => `${Math.round(weight * 100)} %`;
const quoted = (token) => `“${token}”`;
const fixed = (value, digits) => {
  const text = value.toFixed(digits);
  return Number(text) === 0 ? text.replace("-", "") : text.replace("-", "−");
};
const clamp = (value, most) => Math.max(0, Math.min(most, value));
const same = (x, y) => String(x) === String(y);

/* One or two tokens, [i, j] with -1 for none, are pointed at, or chosen with the arrow keys; a click or Enter pins them, a second one
   or Esc releases them. `show(target, pinned)` is told of each change; the target null is the state at rest. */
const releases = [];
const choosing = (show) => {
  const state = { target: null, pinned: null };
  const set = (target, pinned = state.pinned) => {
    if (same(target, state.target) && same(pinned, state.pinned)) return;
    state.target = target; state.pinned = pinned;
    show(target, pinned !== null);
  };
  state.point = (target) => { if (state.pinned === null) set(target); };
  /* A finger leaves nothing pointed at when it releases; a mouse does. */
  state.pin = (target, touch = false) => { if (target) same(target, state.pinned) ? set(touch ? null : target, null) : set(target, target); };
  state.move = (target) => set(target, state.pinned && target);
  state.release = () => set(null, null);
  releases.push(state.release);
  return state;
};
/* Pictures that are pointed at, and the element in which the arrow keys move over the given rows and columns. */
const pointing = (state, pictures, focus, rows, columns, at) => {
  const away = () => { if (document.activeElement !== focus) state.point(null); };
  for (const picture of pictures) {
    picture.addEventListener("pointermove", (event) => { const target = at(event); target ? state.point(target) : away(); });
    picture.addEventListener("pointerleave", away);
    picture.addEventListener("click", (event) => state.pin(at(event), event.pointerType === "touch"));
  }
  focus.addEventListener("blur", () => state.point(null));
  const next = (list, value, step) => {
    const place = list.indexOf(value) + step;
    return list[place < -1 ? list.length - 1 : place] ?? -1;
  };
  focus.addEventListener("keydown", (event) => {
    if (event.target !== focus) return;
    const step = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] }[event.key];
    if (step) {
      const [i, j] = state.target ?? [-1, -1];
      const target = [step[0] ? next(rows, i, step[0]) : i, step[1] ? next(columns, j, step[1]) : j];
      state.move(same(target, [-1, -1]) ? null : target);
    } else if ((event.key === "Enter" || event.key === " ") && state.target) state.pin(state.target);
    else return;
    event.preventDefault();
  });
};
const bar = (value, text) => {
  const element = html("span", text, "bar");
  element.style.setProperty("--w", value);
  return element;
};

/* Attention: the curves, the matrix and the sentence below show the weights of what is chosen; what is pinned shows its scores. */
const SIGNS = [[226, 92, 48], [20, 150, 136]];
const strip = (values) => {
  const canvas = document.createElement("canvas"), most = 127;
  canvas.width = values.length; canvas.height = 1;
  const context = canvas.getContext("2d"), pixels = context.createImageData(values.length, 1);
  values.forEach((value, at) => pixels.data.set([...SIGNS[Number(value > 0)], Math.min(255, 2 * Math.abs(value) * 255 / most)], 4 * at));
  context.putImageData(pixels, 0, 0);
  canvas.setAttribute("role", "img");
  canvas.setAttribute("aria-label", `${values.length} values as colours`);
  return canvas;
};
for (const name of ["a", "b"]) {
  const one = data[name];
  if (!one) continue;
  for (const key of ["scores", "bias"]) if (one[key]) one[key].values = new Int16Array(bytes(one[key].values).buffer);
  for (const key of ["queries", "keys"]) if (one[key]) one[key].values = new Int8Array(bytes(one[key].values).buffer);
  if (one.attention) one.attention = bytes(one.attention);
  one.n = one.tokens.length;
  const at = (part, layer, head, i, j) => part.steps[layer] * part.values[((layer * one.heads + head) * one.n + i) * one.n + j];
  one.score = (layer, head, i, j) => at(one.scores, layer, head, i, j);
  one.biased = (head, i, j) => one.bias ? at(one.bias, 0, head, i, j) : 0;
  one.vector = (part, layer, head, i) => part.values.subarray(((layer * one.heads + head) * one.n + i) * one.d, ((layer * one.heads + head) * one.n + i + 1) * one.d);
  /* The weights of a head of a layer, [tokens, tokens]; of the average for head -1. */
  const known = new Map();
  one.weights = (layer, head) => {
    const key = `${layer} ${head}`, size = one.n * one.n;
    if (known.has(key)) return known.get(key);
    let found = new Float32Array(size);
    if (one.attention) found = Float32Array.from(one.attention.subarray(layer * size, (layer + 1) * size), (value) => value / 255);
    else if (head < 0) for (let h = 0; h < one.heads; h++) one.weights(layer, h).forEach((weight, k) => { found[k] += weight / one.heads; });
    else for (let i = 0; i < one.n; i++) {
      const row = one.tokens.map((_, j) => one.score(layer, head, i, j) + one.biased(head, i, j)), most = Math.max(...row);
      const powers = row.map((score) => Math.exp(score - most)), sum = powers.reduce((x, y) => x + y);
      powers.forEach((power, j) => { found[i * one.n + j] = power / sum; });
    }
    known.set(key, found);
    return found;
  };
}

const attention = (box, layer, radios) => {
  const one = data[box.dataset.sentence], { tokens, n } = one;
  const look = box.querySelector(".look"), flow = box.querySelector(".flow"), matrix = box.querySelector(".matrix");
  const say = box.querySelector(".say"), curves = flow.querySelector(".curves"), panel = box.querySelector(".scores");
  const from = [...flow.querySelectorAll(".from text")], to = [...flow.querySelectorAll(".to text")];
  const left = Number(matrix.dataset.left), top = Number(matrix.dataset.top), cell = Number(matrix.dataset.cell);
  const image = matrix.querySelector("image"), pick = svg("rect", { class: "pick", visibility: "hidden" });
  const explanation = say.textContent.slice(say.textContent.indexOf("Left:"));
  let head = Number(radios.find((radio) => radio.checked)?.value ?? -1);
  matrix.append(pick);

  const which = () => head < 0 ? "Average of the heads" : `Head ${head + 1}`;
  const curve = (i, j, w) => curves.append(svg("path", {
    d: `M102 ${22 * i + 11}C150 ${22 * i + 11} 150 ${22 * j + 11} 198 ${22 * j + 11}`,
    "stroke-width": (0.6 + 5 * w).toFixed(1), opacity: Math.min(1, 0.15 + w).toFixed(2),
  }));
  const paint = () => {  /* the matrix of this head, in the colours of the page's other pictures */
    const canvas = document.createElement("canvas"), weights = one.weights(layer, head);
    const most = one.attention ? Math.max(...weights) : 1;
    canvas.width = canvas.height = n;
    const context = canvas.getContext("2d"), pixels = context.createImageData(n, n);
    weights.forEach((weight, at) => pixels.data.set([124, 92, 246, 255 * (weight / most) ** 0.7], 4 * at));
    context.putImageData(pixels, 0, 0);
    image.setAttribute("href", canvas.toDataURL());
    matrix.setAttribute("aria-label", `Attention in layer ${layer + 1}, ${which().toLowerCase()}`);
  };
  /* How a token comes to its weights: its query, each key, q·k / √d, the softmax. */
  const computed = (i) => {
    panel.replaceChildren(html("h4", `${quoted(tokens[i])} in layer ${layer + 1}, head ${head + 1}: softmax of q·k / √${one.d}${one.bias ? " + B" : ""}`));
    if (one.queries) {
      const line = html("p", "query q of " + quoted(tokens[i]));
      line.append(strip(one.vector(one.queries, layer, head, i)));
      panel.append(line);
    } else panel.append(html("p", "The text is long: queries and keys are not in this page."));
    const table = html("table"), caption = html("caption", "A row for each token that it attends to"), row = html("tr");
    const columns = ["token", ...(one.keys ? ["key k"] : []), `q·k / √${one.d}`, ...(one.bias ? ["B", "sum"] : []), "softmax"];
    for (const title of columns) { const th = html("th", title); th.scope = "col"; row.append(th); }
    const top = html("thead"), body = html("tbody"), weights = one.weights(layer, head).subarray(i * n, (i + 1) * n);
    top.append(row);
    tokens.forEach((token, j) => {
      const line = html("tr", "", same(state.target, [i, j]) ? "on" : ""), th = html("th", token), score = one.score(layer, head, i, j);
      const cells = one.keys ? [strip(one.vector(one.keys, layer, head, j))] : [];
      cells.push(fixed(score, 2));
      if (one.bias) cells.push(fixed(one.biased(head, i, j), 2), fixed(score + one.biased(head, i, j), 2));
      cells.push(bar(weights[j], fixed(weights[j], 3)));
      th.scope = "row";
      line.append(th, ...cells.map((content) => { const td = html("td"); td.append(content); return td; }));
      body.append(line);
    });
    table.append(caption, top, body);
    panel.append(table);
  };
  const show = (target, pinned) => {
    const [i, j] = target ?? [-1, -1], weights = one.weights(layer, head);
    curves.replaceChildren();
    for (const text of [...from, ...to]) text.classList.remove("on", "off");
    say.classList.toggle("pinned", pinned);
    panel.hidden = !(pinned && i >= 0 && one.scores);
    if (!panel.hidden) head < 0 ? panel.replaceChildren(html("p", "Choose a head to see queries, keys and scores.")) : computed(i);
    if (!target) {
      for (let k = 0; k < n; k++) {
        const row = [...weights.subarray(k * n, (k + 1) * n)].map((w, at) => [w, at]).sort((x, y) => y[0] - x[0]);
        for (const [w, at] of row.slice(0, 3)) if (w >= 0.02) curve(k, at, w);
      }
      pick.setAttribute("visibility", "hidden");
      say.textContent = `${which()}. ${explanation}`;
      return;
    }
    const outward = i >= 0, token = outward ? i : j;
    const row = tokens.map((_, k) => outward ? weights[i * n + k] : weights[k * n + j]);
    row.forEach((w, k) => { if (w >= 0.004) outward ? curve(i, k, w) : curve(k, j, w); });
    (outward ? from : to).forEach((text, k) => text.classList.add(k === token ? "on" : "off"));
    (outward ? to : from).forEach((text, k) => text.classList.add(row[k] >= 0.05 ? "on" : "off"));
    const order = row.map((w, k) => [w, k]).sort((x, y) => y[0] - x[0]).slice(0, 4).filter(([w]) => w >= 0.005);
    const list = order.map(([w, k]) => `${quoted(tokens[k])} ${percent(w)}`).join(", ");
    say.textContent = `${which()}: ` + (outward && j >= 0 ? `${quoted(tokens[i])} takes ${percent(row[j])} from ${quoted(tokens[j])}.`
      : outward ? `${quoted(tokens[i])} attends to ${list}.` : `${quoted(tokens[j])} is attended to by ${list}.`);
    if (document.activeElement === look) (outward ? from : to)[token].scrollIntoView({ block: "nearest" });
    const area = outward && j >= 0 ? [j, i, 1, 1] : outward ? [0, i, n, 1] : [j, 0, 1, n];
    for (const [key, value] of Object.entries({ x: left + cell * area[0], y: top + cell * area[1], width: cell * area[2], height: cell * area[3] })) pick.setAttribute(key, value);
    pick.setAttribute("visibility", "visible");
  };
  const state = choosing(show), all = tokens.map((_, i) => i);
  pointing(state, [flow, matrix], look, all, all, (event) => {
    const picture = event.currentTarget, area = picture.getBoundingClientRect();
    if (picture === flow) {
      const i = clamp(Math.floor((event.clientY - area.top) / area.height * n), n - 1);
      return event.clientX - area.left < area.width / 2 ? [i, -1] : [-1, i];
    }
    const scale = matrix.viewBox.baseVal.width / area.width;
    const i = Math.floor(((event.clientY - area.top) * scale - top) / cell), j = Math.floor(((event.clientX - area.left) * scale - left) / cell);
    const inside = (k) => k >= 0 && k < n;
    return inside(i) ? [i, inside(j) ? j : -1] : inside(j) ? [-1, j] : null;
  });
  return (value) => { head = value; paint(); show(state.target, state.pinned !== null); };
};
for (const layer of document.querySelectorAll(".layer")) {
  const radios = [...layer.querySelectorAll(".heads input")];
  const turns = [...layer.querySelectorAll(".attention")].map((box) => attention(box, Number(layer.dataset.layer), radios));
  for (const radio of radios) radio.addEventListener("change", () => { for (const turn of turns) turn(Number(radio.value)); });
}
const all = document.getElementById("all-layers");
all.addEventListener("click", () => {
  const layers = [...document.querySelectorAll(".layer")], open = layers.some((layer) => !layer.open);
  for (const layer of layers) layer.open = open;
  all.textContent = open ? "Close all layers" : "Open all layers";
});

/* The vector: one number of it. */
for (const picture of document.querySelectorAll(".strip[data-vector]")) {
  const figure = picture.parentElement, say = figure.querySelector(".say"), cursor = picture.querySelector(".cursor"), first = say.textContent;
  const values = figure.querySelector(".numbers").textContent.split(" ");
  const state = choosing((target, pinned) => {
    cursor.style.display = target ? "block" : "none";
    if (target) cursor.style.left = `${(target[0] + 0.5) / values.length * 100}%`;
    say.textContent = target ? `number ${target[0] + 1} of ${values.length}: ${values[target[0]].replace("-", "−")}` : first;
    say.classList.toggle("pinned", pinned);
  });
  pointing(state, [picture], picture, [], [], (event) => {
    const area = picture.getBoundingClientRect();
    return [clamp(Math.floor((event.clientX - area.left) / area.width * values.length), values.length - 1), -1];
  });
  picture.addEventListener("keydown", (event) => {
    const at = state.target ? state.target[0] : -1, step = { ArrowLeft: -1, ArrowRight: 1, PageUp: -20, PageDown: 20 }[event.key];
    if (step) state.move([at < 0 ? 0 : clamp(at + step, values.length - 1), -1]);
    else if (event.key === "Home" || event.key === "End") state.move([event.key === "Home" ? 0 : values.length - 1, -1]);
    else return;
    event.preventDefault();
  }, { capture: true });
}

/* The pairs: a token that is chosen shows what it adds with each token of the other sentence; a cell shows what its pair adds. */
if (data.pairs) {
  const values = new Float32Array(bytes(data.pairs).buffer), n = data.a.n, m = data.b.n;
  const says = [document.getElementById("pair-say"), document.getElementById("matrix-say")], first = says.map((say) => [...say.childNodes]);
  const cosine = fixed(Number(document.getElementById("answer").dataset.value), 4);
  const words = { a: [...document.querySelectorAll(".spoken.a .tok")], b: [...document.querySelectorAll(".spoken.b .tok")] };
  for (const side of ["a", "b"]) words[side].sort((x, y) => x.dataset.i - y.dataset.i);
  const own = new Map([...words.a, ...words.b].map((word) => [word, [word.style.getPropertyValue("--v"), word.dataset.sign]]));
  const tint = (word, value) => { word.style.setProperty("--v", Math.min(1, Math.abs(value) * n * m / 2)); word.dataset.sign = value < 0 ? "less" : "more"; };
  const partners = (list, sign, tokens) => list.filter(([value]) => value * sign > 0).sort((x, y) => sign * (y[0] - x[0])).slice(0, 3)
    .map(([value, k]) => `${quoted(tokens[k])} ${fixed(value, 4)}`).join(", ");
  const told = (i, j) => {
    if (i >= 0 && j >= 0) {
      const value = values[i * m + j], pair = `${quoted(data.a.tokens[i])} and ${quoted(data.b.tokens[j])}`;
      return value < 0 ? `${pair} take ${fixed(-value, 4)} away from the cosine, ${cosine}.` : `${pair} add ${fixed(value, 4)} to the cosine, ${cosine}.`;
    }
    const side = i >= 0 ? "a" : "b", other = i >= 0 ? "b" : "a", k = i >= 0 ? i : j;
    const row = data[other].tokens.map((_, at) => [i >= 0 ? values[i * m + at] : values[at * m + j], at]);
    const total = row.reduce((sum, [value]) => sum + value, 0), token = quoted(data[side].tokens[k]);
    const more = partners(row, 1, data[other].tokens), less = partners(row, -1, data[other].tokens);
    return total < 0
      ? `${token} takes ${fixed(-total, 4)} away from the cosine, ${cosine}: with ${less}.${more ? ` It adds with ${more}.` : ""}`
      : `${token} adds ${fixed(total, 4)} to the cosine, ${cosine}${more ? `: most with ${more}` : ""}.${less ? ` It takes away with ${less}.` : ""}`;
  };
  const state = choosing((target, pinned) => {
    for (const on of document.querySelectorAll(".tok.on, .heat .on")) { on.classList.remove("on"); }
    for (const word of own.keys()) if (word.hasAttribute("aria-pressed")) word.setAttribute("aria-pressed", "false");
    for (const [word, [value, sign]] of own) { word.style.setProperty("--v", value); word.dataset.sign = sign; }
    says.forEach((say, at) => { say.classList.toggle("pinned", pinned); if (!target) say.replaceChildren(...first[at]); });
    if (!target) return;
    const [i, j] = target;
    for (const say of says) say.textContent = told(i, j);
    words.a.forEach((word, k) => j >= 0 && (i < 0 || k === i) ? tint(word, values[k * m + j]) : k === i || word.style.setProperty("--v", 0));
    words.b.forEach((word, k) => i >= 0 && (j < 0 || k === j) ? tint(word, values[i * m + k]) : k === j || word.style.setProperty("--v", 0));
    for (const word of [words.a[i], words.b[j]]) if (word) { word.classList.add("on"); word.setAttribute("aria-pressed", pinned); }
    const chosen = i >= 0 && j >= 0 ? `td[data-i="${i}"][data-j="${j}"]` : i >= 0 ? `th[data-i="${i}"]` : `th[data-j="${j}"]`;
    for (const cell of document.querySelectorAll(`.heat ${chosen}`)) {
      cell.classList.add("on");
      if (document.activeElement === cell.closest("table")) cell.scrollIntoView({ block: "nearest", inline: "nearest" });
    }
  });
  for (const table of document.querySelectorAll("table.heat")) {
    const rows = [...table.querySelectorAll("th[data-i]")].map((th) => Number(th.dataset.i));
    const columns = [...table.querySelectorAll("th[data-j]")].map((th) => Number(th.dataset.j));
    pointing(state, [table], table, rows, columns, (event) => {
      const cell = event.target.closest("[data-i], [data-j]");
      return cell && [Number(cell.dataset.i ?? -1), Number(cell.dataset.j ?? -1)];
    });
  }
  for (const side of ["a", "b"]) {
    const line = document.querySelector(`.spoken.${side}`), target = (at) => side === "a" ? [at, -1] : [-1, at];
    line.setAttribute("role", "group");
    line.setAttribute("aria-label", `Sentence ${side.toUpperCase()}: left and right choose a token`);
    words[side].forEach((word, at) => {
      word.tabIndex = at === 0 ? 0 : -1;
      word.setAttribute("role", "button");
      word.setAttribute("aria-pressed", "false");
      word.setAttribute("aria-describedby", "pair-say");
      word.addEventListener("pointerenter", () => state.point(target(at)));
      word.addEventListener("pointerleave", () => state.point(null));
      word.addEventListener("click", (event) => state.pin(target(at), event.pointerType === "touch"));
      word.addEventListener("focus", () => {
        for (const each of words[side]) each.tabIndex = each === word ? 0 : -1;
        if (word.matches(":focus-visible")) state.point(target(at));
      });
      word.addEventListener("blur", () => state.point(null));
      word.addEventListener("keydown", (event) => {
        const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
        if (step) words[side][clamp(at + step, words[side].length - 1)].focus();
        else if (event.key === "Enter" || event.key === " ") state.pin(target(at));
        else return;
        event.preventDefault();
      });
    });
  }
  const fade = document.getElementById("fade");
  fade.addEventListener("click", () => fade.setAttribute("aria-pressed", document.documentElement.classList.toggle("fade")));
}

/* The sections: links scroll, also in the frame of a notebook, where they would load the notebook; ← → walk them as slides. */
const links = [...document.querySelectorAll(".strip-nav a")], sections = links.map((link) => document.querySelector(link.getAttribute("href")));
const bar_of_links = document.querySelector(".strip-nav");
let current = -1, walked = -Infinity;
const mark = (at) => {
  if (at === current) return;
  current = at;
  links.forEach((link, k) => k === at ? link.setAttribute("aria-current", "step") : link.removeAttribute("aria-current"));
  const link = links[at];
  bar_of_links.scrollLeft = link.offsetLeft + link.offsetWidth / 2 - bar_of_links.clientWidth / 2;
};
const go = (at) => {
  walked = performance.now();
  mark(at);
  if (at === 0) window.scrollTo({ top: 0 }); else sections[at].scrollIntoView();
  sections[at].querySelector("h1, h2").focus({ preventScroll: true });
};
const follow = () => {
  if (performance.now() - walked < 900) return;  /* a smooth scroll to a chosen section passes others */
  const line = bar_of_links.offsetHeight + innerHeight / 4;
  mark(Math.max(0, sections.findLastIndex((section) => section.getBoundingClientRect().top <= line)));
};
document.addEventListener("click", (event) => {
  const link = event.target.closest('a[href^="#"]'), at = links.indexOf(link);
  if (at < 0) return;
  event.preventDefault();
  go(at);
});
document.addEventListener("keydown", (event) => {
  if (event.defaultPrevented || event.altKey || event.ctrlKey || event.metaKey || event.shiftKey) return;
  if (event.key === "Escape") for (const release of releases) release();
  const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
  if (!step || event.target.closest("input, .serve, .scroll, pre, .strip-nav")) return;
  event.preventDefault();
  go(clamp(current + step, links.length - 1));
});
document.addEventListener("scroll", follow, { passive: true });
follow();

/* What can be scrolled sideways can be reached with the keyboard; at other widths it is no stop for it. */
const stops = () => {
  for (const box of document.querySelectorAll(".scroll, .formula")) {
    const wide = box.scrollWidth > box.clientWidth + 1 || box.scrollHeight > box.clientHeight + 1;
    if (!wide || box.querySelector("table[tabindex]")) { box.removeAttribute("tabindex"); box.removeAttribute("role"); box.removeAttribute("aria-label"); continue; }
    box.tabIndex = 0;
    box.setAttribute("role", "group");
    box.setAttribute("aria-label", "Scrolls: " + (box.querySelector("caption")?.textContent ?? box.querySelector("svg")?.getAttribute("aria-label") ?? "formula"));
  }
};
stops();
window.addEventListener("resize", stops);
document.addEventListener("toggle", stops, true);
