// Puts the page together.
function drawHeader() {
  document.getElementById("title").textContent = data.name;
  document.getElementById("subtitle").textContent =
    `${data.workload} (${figure(data.network.macs)} MACs, ${figure(data.network.parameters)} parameters) on ${data.family.name}: ${data.family.description}`;
  const cases = data.winners.flatMap((winner) => winner.cases);
  const passed = cases.filter((item) => item.passed).length;
  const cards = [
    [data.counts.simulated, "designs simulated", ""], [data.counts.feasible, "feasible", ""],
    [designs.front.filter(Boolean).length, "on the Pareto set", ""], [data.winners.length, "winners", ""],
  ];
  if (cases.length) cards.push([`${passed}/${cases.length}`, "RTL pieces bit-exact and on time", passed === cases.length ? "good" : "bad"]);
  show("cards", ...cards.map(([value, text, kind]) =>
    element("div", { class: `card ${kind}` }, element("b", {}, figure(value)), element("span", {}, text))));
}

function drawProvenance() {
  const directions = data.objectives.map(({ name, maximised }) => `${name} (${maximised ? "larger" : "smaller"} is better)`);
  const rows = [
    ["objectives", directions.join(", ")],
    ["constraints", data.constraints.join("; ") || "none"],
    ["cycles", `level A (closed forms over the compiled program)${data.exact ? ", which the family declares exact" : ""}; winners confirmed by level C (discrete events)`],
    ["energy and area", "access and component counts times the sourced constants of dse show tech; by component above"],
    ["accuracy", "signal to quantization noise of the logits against the float network, on seeded images that did not calibrate it"],
    ["designs", `${data.counts.simulated} simulated, ${data.counts.rejected} rejected by analytic limits, ${data.counts.repeats} repeated proposals` + (data.thinned ? `; ${data.thinned} dominated ones are not drawn` : "")],
    ["seed", String(data.seed)],
    ["versions", Object.entries(data.identity).map(([name, value]) => `${name} ${value}`).join(", ")],
  ];
  show("provenance", table(["", ""], rows));
}

const names = Object.keys(designs.figures);
view.x = data.objectives[0].name;
view.y = (data.objectives[1] || data.objectives[0]).name;
drawHeader();
if (names.length) {
  explorerControls();
  drawExplorer();
  drawDetail();
} else {
  show("explorer-plot", element("p", { class: "muted" }, "No design was simulated."));
}
drawKnobs();
drawWinners();
drawVerification();
drawProvenance();
