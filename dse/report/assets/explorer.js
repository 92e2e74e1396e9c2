// The scatter of all designs over two figures, with details of the one that was clicked; the knobs' distributions.
const designs = data.designs;
const winnerPlace = new Map(data.winners.map((winner, place) => [winner.trial, place + 1]));
const view = { x: null, y: null, colour: "", logX: false, logY: false, others: true, infeasible: false, selected: -1 };

function knobValue(knob, index) {
  return knob.choices[designs.knobs[knob.name][index]];
}

function describe(index) {
  const figures = data.objectives.map(({ name }) => `${name} ${figure(designs.figures[name][index])}`);
  const knobs = data.knobs.map((knob) => `${bare(knob.name)} ${figure(knobValue(knob, index))}`);
  const place = winnerPlace.get(designs.trial[index]);
  return `trial ${designs.trial[index]}${place ? `, winner ${place}` : ""}\n${figures.join("\n")}\n${knobs.join(", ")}`;
}

function explorerControls() {
  const figures = Object.keys(designs.figures).map((name) => [name, name]);
  const set = (key) => (value) => { view[key] = value; drawExplorer(); };
  const knobs = [["", "Pareto set"], ...data.knobs.map((knob) => [knob.name, bare(knob.name)])];
  show("explorer-controls",
    choice("x", figures, view.x, set("x")), toggle("log", view.logX, set("logX")),
    choice("y", figures, view.y, set("y")), toggle("log", view.logY, set("logY")),
    choice("colour by", knobs, view.colour, set("colour")),
    toggle("dominated", view.others, set("others")), toggle("infeasible", view.infeasible, set("infeasible")));
}

function visible(index) {
  const positive = (!view.logX || designs.figures[view.x][index] > 0) && (!view.logY || designs.figures[view.y][index] > 0);
  if (!positive) return false;
  if (designs.front[index]) return true;
  return designs.feasible[index] ? view.others : view.infeasible;
}

function scale(values, logarithmic, from, to) {
  const map = logarithmic ? Math.log10 : (value) => value;
  let low = Math.min(...values), high = Math.max(...values);
  if (low === high) { const pad = Math.abs(low) * 0.1 || 1; low -= pad; high += pad; }
  const margin = (map(high) - map(low)) * 0.05;
  const start = map(low) - margin, end = map(high) + margin;
  const back = (value) => (logarithmic ? 10 ** value : value);
  const place = (value) => from + ((map(value) - start) / (end - start)) * (to - from);
  return { place, ticks: ticks(back(start), back(end), logarithmic) };
}

function drawExplorer() {
  const width = 860, height = 500, left = 76, right = 16, top = 14, bottom = 48;
  const chart = shape("svg", { viewBox: `0 0 ${width} ${height}`, role: "group", "aria-label": `${view.y} over ${view.x}` });
  const indices = [...designs.trial.keys()].filter(visible);
  const xs = designs.figures[view.x], ys = designs.figures[view.y];
  if (!indices.length) {
    show("explorer-plot", element("p", { class: "muted" }, "No design to show with these settings."));
    return;
  }
  const x = scale(indices.map((index) => xs[index]), view.logX, left, width - right);
  const y = scale(indices.map((index) => ys[index]), view.logY, height - bottom, top);
  for (const mark of x.ticks) {
    chart.append(shape("line", { x1: x.place(mark), x2: x.place(mark), y1: top, y2: height - bottom, class: "gridline" }));
    chart.append(shape("text", { x: x.place(mark), y: height - bottom + 18, "text-anchor": "middle" }, figure(mark)));
  }
  for (const mark of y.ticks) {
    chart.append(shape("line", { x1: left, x2: width - right, y1: y.place(mark), y2: y.place(mark), class: "gridline" }));
    chart.append(shape("text", { x: left - 8, y: y.place(mark) + 4, "text-anchor": "end" }, figure(mark)));
  }
  chart.append(shape("text", { x: (left + width - right) / 2, y: height - 8, "text-anchor": "middle", class: "name" }, view.x));
  const middle = (top + height - bottom) / 2;
  chart.append(shape("text", { x: 14, y: middle, "text-anchor": "middle", class: "name", transform: `rotate(-90 14 ${middle})` }, view.y));
  const rank = (index) => (winnerPlace.has(designs.trial[index]) ? 2 : designs.front[index]);
  indices.sort((a, b) => rank(a) - rank(b) || a - b);
  for (const index of indices) chart.append(...point(index, x.place(xs[index]), y.place(ys[index])));
  const knob = data.knobs.find((item) => item.name === view.colour);
  const legend = element("div", { class: "legend" });
  const entries = knob
    ? knob.choices.map((value, index) => [figure(value), `var(--c${index % COLOURS})`])
    : [["Pareto set", "var(--accent)"], ["dominated", "var(--dim)"], ["ringed: winner", "var(--mark)"]];
  for (const [text, colour] of entries) legend.append(element("span", {}, element("i", { style: `background:${colour}` }), text));
  show("explorer-plot", chart, legend);
}

function point(index, x, y) {
  const place = winnerPlace.get(designs.trial[index]);
  const kind = designs.front[index] ? "front" : designs.feasible[index] ? "other" : "infeasible";
  const classes = [kind, place ? "winner" : "", index === view.selected ? "selected" : ""].join(" ").trim();
  const circle = shape("circle", { cx: x, cy: y, r: place ? 7 : designs.front[index] ? 5 : 3.5, class: classes });
  if (view.colour && kind !== "infeasible") {
    const colour = designs.knobs[view.colour][index] % COLOURS;
    circle.setAttribute("style", `fill:var(--c${colour});opacity:${designs.front[index] ? 1 : 0.35}`);
  }
  if (designs.front[index]) circle.setAttribute("tabindex", "0");
  const select = () => { view.selected = index; drawExplorer(); drawDetail(); };
  circle.addEventListener("click", select);
  circle.addEventListener("keydown", (event) => { if (event.key === "Enter") select(); });
  hover(circle, () => describe(index));
  if (!place) return [circle];
  // on alternating sides, so that the numbers of close winners stay apart
  const side = place % 2 ? { x: x + 10, "text-anchor": "start" } : { x: x - 10, "text-anchor": "end" };
  return [circle, shape("text", { ...side, y: y - 6, class: "name" }, String(place))];
}

function drawDetail() {
  const index = view.selected;
  if (index < 0) {
    show("explorer-detail", element("p", { class: "muted" }, "Click a point to see the design behind it."));
    return;
  }
  const place = winnerPlace.get(designs.trial[index]);
  const state = designs.front[index] ? "on the Pareto set" : designs.feasible[index] ? "dominated" : "infeasible";
  const rows = [
    ...Object.keys(designs.figures).map((name) => [name, figure(designs.figures[name][index])]),
    ...data.knobs.map((knob) => [bare(knob.name), figure(knobValue(knob, index))]),
    ...Object.entries(designs.violations[index] || {}).map(([name, excess]) => [name, `broken by ${figure(100 * excess)} %`]),
  ];
  show("explorer-detail",
    element("b", {}, `Trial ${designs.trial[index]}`),
    element("p", { class: "muted" }, `${state}${place ? `, winner ${place}` : ""}, design ${designs.digest[index]}`),
    table(["", ""], rows));
}

function drawKnobs() {
  document.getElementById("knobs-section").hidden = !data.knobs.length;
  const front = [...designs.trial.keys()].filter((index) => designs.front[index]);
  show("knobs", ...data.knobs.map((knob) => {
    const share = (indices, place) => indices.filter((index) => designs.knobs[knob.name][index] === place).length / (indices.length || 1);
    const all = [...designs.trial.keys()];
    const width = 200, height = 116, base = 92, slot = width / knob.choices.length;
    const chart = shape("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": knob.name });
    chart.append(shape("text", { x: 0, y: 12, class: "title" }, bare(knob.name)));
    const peak = Math.max(...knob.choices.map((_, place) => Math.max(share(front, place), share(all, place))), 1e-9);
    const widest = Math.max(...knob.choices.map((value) => figure(value).length));
    knob.choices.forEach((value, place) => {
      const mine = (share(front, place) / peak) * 68, theirs = (share(all, place) / peak) * 68;
      const group = shape("g");
      group.append(shape("rect", { x: place * slot, y: 18, width: slot, height: 92, style: "fill:transparent" }));
      group.append(shape("rect", { x: place * slot + 2, y: base - mine, width: slot - 4, height: mine, style: "fill:var(--accent)" }));
      group.append(shape("rect", { x: place * slot + 2, y: base - theirs, width: slot - 4, height: theirs, style: "fill:none;stroke:var(--soft)" }));
      const text = figure(value);
      if (place % Math.ceil((8.5 * widest) / slot) === 0)
        group.append(shape("text", { x: (place + 0.5) * slot, y: base + 15, "text-anchor": "middle" }, text));
      hover(group, () => `${bare(knob.name)} ${text}: ${figure(100 * share(front, place))} % of the front, ${figure(100 * share(all, place))} % of all`);
      chart.append(group);
    });
    chart.append(shape("line", { x1: 0, x2: width, y1: base, y2: base, class: "axis" }));
    return element("div", { class: "panel" }, chart);
  }));
}
