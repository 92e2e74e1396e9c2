// Winners: their figures, where energy, area and cycles go, and whether the hardware did what was predicted.
let layerWinner = 0;

function drawWinners() {
  document.getElementById("winners-section").hidden = !data.winners.length;
  if (!data.winners.length) return;
  const line = (name, pick) => [name, ...data.winners.map(pick)];
  show("winner-table", table(["", ...data.winners.map((_, place) => `winner ${place + 1}`)], [
    line("chosen as", (winner) => winner.reason),
    ...data.objectives.map(({ name }) => line(name, (winner) => figure(winner.summary[name]))),
    line("cycles", (winner) => figure(winner.cycles.A)),
    ...data.knobs.map((knob) => line(bare(knob.name), (winner) => figure(winner.values[knob.name]))),
    line("hardware in", (winner) => (winner.rtl ? "-" : `rtl/${winner.name}`)),
  ]));
  const rows = (key, factor) => data.winners.map((winner, place) => ({
    name: `winner ${place + 1}`,
    parts: Object.fromEntries(Object.entries(winner.metrics[key]).map(([part, value]) => [part, value * factor])),
  }));
  show("energy-parts", ...stackedBars("Energy of an inference by component", rows("energy_pj", 1e-6), (value) => `${figure(value)} uJ`));
  show("area-parts", ...stackedBars("Area by component", rows("area_um2", 1e-6), (value) => `${figure(value)} mm\u00b2`));
  drawLayers();
}

function drawLayers() {
  show("layer-controls", ...data.winners.map((winner, place) => {
    const button = element("button", { type: "button", "aria-pressed": String(place === layerWinner) }, `winner ${place + 1}: ${winner.reason}`);
    button.addEventListener("click", () => { layerWinner = place; drawLayers(); });
    return button;
  }));
  const metrics = data.winners[layerWinner].metrics;
  const cycles = metrics.layers.map((layer) => {
    const lost = Object.values(layer.losses).reduce((sum, value) => sum + value, 0);
    return { name: layer.name, parts: { useful: Math.max(0, layer.cycles - lost), ...layer.losses } };
  });
  const causes = [...new Set(cycles.flatMap((row) => Object.keys(row.parts)))];
  const energy = metrics.layers.map((layer) => ({
    name: layer.name,
    parts: Object.fromEntries(Object.entries(layer.energy_pj).map(([part, value]) => [part, value * 1e-6])),
  }));
  show("layer-cycles", ...stackedBars(`Cycles: useful ones and what the others were lost to (level ${metrics.level})`, cycles, figure, causes));
  show("layer-energy", ...stackedBars("Dynamic energy", energy, (value) => `${figure(value)} uJ`));
}

function drawVerification() {
  const rows = [];
  data.winners.forEach((winner, place) => {
    const agree = winner.cycles.A === winner.cycles.C;
    rows.push([`winner ${place + 1}`, "whole network", "", "", winner.cycles.A, winner.cycles.C, "", verdict(agree, "A = C")]);
    for (const item of winner.cases) {
      rows.push([`winner ${place + 1}`, item.name, item.outputs, item.mismatches_rtl, item.cycles_a, item.cycles_c, item.cycles_rtl,
        verdict(item.passed, "bit-exact, A = C = RTL")]);
    }
    if (winner.rtl) rows.push([`winner ${place + 1}`, `no hardware: ${winner.rtl}`, "", "", "", "", "", ""]);
  });
  document.getElementById("verification-section").hidden = !rows.length;
  show("verification", table(["design", "piece", "outputs", "differ", "cycles A", "cycles C", "cycles RTL", ""], rows));
}

function verdict(passed, text) {
  return element("span", { class: passed ? "good" : "bad" }, passed ? `\u2713 ${text}` : "\u2717 FAILED");
}
