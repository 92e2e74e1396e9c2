// Small drawing kit. Everything that comes from the data is set as text, never as markup.
const data = JSON.parse(document.getElementById("data").textContent);
const SVG = "http://www.w3.org/2000/svg";
const COLOURS = 16; // --c0 to --c15 of the style sheet

function element(name, attributes = {}, ...children) {
  const node = document.createElement(name);
  return filled(node, attributes, children);
}

function shape(name, attributes = {}, ...children) {
  const node = document.createElementNS(SVG, name);
  return filled(node, attributes, children);
}

function filled(node, attributes, children) {
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  for (const child of children) node.append(child);
  return node;
}

function show(id, ...children) {
  document.getElementById(id).replaceChildren(...children);
}

// 12345.678 -> 12,346; 0.0012345 -> 0.001235
function figure(value) {
  if (typeof value === "boolean") return value ? "yes" : "no";
  if (typeof value !== "number") return String(value);
  if (value === 0) return "0";
  const size = Math.abs(value);
  if (size >= 10000) return Math.round(value).toLocaleString("en-US");
  if (size < 1e-4) return value.toExponential(2);
  return String(Number(value.toPrecision(4)));
}

function bare(name) {
  return name.replace(/^(hardware|decisions)\./, "");
}

function hover(node, text) {
  const tip = document.getElementById("tip");
  const place = (x, y) => {
    tip.textContent = text();
    tip.hidden = false;
    const left = x + 16 + tip.offsetWidth > innerWidth ? x - 16 - tip.offsetWidth : x + 16;
    tip.style.left = Math.max(4, left) + "px";
    tip.style.top = Math.min(y + 12, innerHeight - tip.offsetHeight - 8) + "px";
  };
  node.addEventListener("mousemove", (event) => place(event.clientX, event.clientY));
  node.addEventListener("mouseleave", () => { tip.hidden = true; });
  node.addEventListener("focus", () => { const box = node.getBoundingClientRect(); place(box.right, box.bottom); });
  node.addEventListener("blur", () => { tip.hidden = true; });
  return node;
}

function choice(label, options, value, change) {
  const select = element("select", { "aria-label": label });
  for (const [key, text] of options) {
    const option = element("option", { value: key }, text);
    option.selected = key === value;
    select.append(option);
  }
  select.addEventListener("change", () => change(select.value));
  return element("label", {}, label, select);
}

function toggle(label, on, change) {
  const box = element("input", { type: "checkbox" });
  box.checked = on;
  box.addEventListener("change", () => change(box.checked));
  return element("label", {}, box, label);
}

function table(columns, rows) {
  const numeric = columns.map((_, index) => rows.some((row) => typeof row[index] === "number")
    && rows.every((row) => typeof row[index] === "number" || row[index] === ""));
  const head = element("tr", {}, ...columns.map((name, index) => element("th", numeric[index] ? { class: "number" } : {}, name)));
  const body = rows.map((row) => element("tr", {}, ...row.map((cell, index) => {
    if (cell instanceof Node) return element("td", {}, cell);
    return element("td", numeric[index] ? { class: "number" } : {}, figure(cell));
  })));
  return element("table", {}, element("thead", {}, head), element("tbody", {}, ...body));
}

// Ticks at 1, 2 or 5 times a power of ten; on a logarithmic axis at powers of ten, or as on a linear one within a decade.
function ticks(low, high, logarithmic) {
  if (logarithmic && high / low > 12) {
    const marks = [];
    for (let power = Math.ceil(Math.log10(low) - 1e-9); power <= Math.log10(high) + 1e-9; power++) marks.push(10 ** power);
    return marks;
  }
  const rough = (high - low) / 6 || 1;
  const unit = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((factor) => factor * unit).find((value) => value >= rough);
  const marks = [];
  for (let index = Math.ceil(low / step - 1e-9); index * step <= high + step * 1e-9; index++) marks.push(index * step);
  return marks;
}

// The same component has the same colour in every chart of the page.
const partColours = new Map();
function partColour(part) {
  if (!partColours.has(part)) partColours.set(part, `var(--c${partColours.size % COLOURS})`);
  return partColours.get(part);
}

// Horizontal stacked bars. rows: [{name, parts: {part: value}}]; returns the nodes of chart and legend.
function stackedBars(title, rows, format, order) {
  const names = {};
  for (const row of rows) for (const [part, value] of Object.entries(row.parts)) names[part] = (names[part] || 0) + value;
  const parts = order || Object.keys(names).sort((a, b) => names[b] - names[a] || (a < b ? -1 : 1));
  const shown = parts.filter((part) => names[part] > 0);
  const colour = Object.fromEntries(shown.map((part) => [part, partColour(part)]));
  const totals = rows.map((row) => shown.reduce((sum, part) => sum + (row.parts[part] || 0), 0));
  const widest = Math.max(...totals, 1e-30);
  const left = 150, width = 560, bar = 20, top = 30, right = 74;
  const chart = shape("svg", { viewBox: `0 0 ${width} ${top + rows.length * (bar + 6) + 4}`, role: "img", "aria-label": title });
  chart.append(shape("text", { x: 0, y: 14, class: "title" }, title));
  rows.forEach((row, index) => {
    const y = top + index * (bar + 6);
    const label = row.name.length > 22 ? row.name.slice(0, 21) + "\u2026" : row.name;
    chart.append(hover(shape("text", { x: left - 8, y: y + 14, "text-anchor": "end", class: "name" }, label), () => row.name));
    let x = left;
    for (const part of shown) {
      const value = row.parts[part] || 0;
      const length = (value / widest) * (width - left - right);
      if (length <= 0) continue;
      const block = shape("rect", { x, y, width: length, height: bar, style: `fill:${colour[part]}` });
      chart.append(hover(block, () => `${row.name}\n${part}: ${format(value)} (${figure((100 * value) / totals[index])} %)`));
      x += length;
    }
    chart.append(shape("text", { x: x + 6, y: y + 14 }, format(totals[index])));
  });
  const legend = element("div", { class: "legend" }, ...shown.map((part) =>
    element("span", {}, element("i", { style: `background:${colour[part]}` }), part)));
  return [chart, legend];
}
