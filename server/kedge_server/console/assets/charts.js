// Draws what data-chart holds: {"unit", "at": [Unix seconds], "lines": [{"label", "values"}],
// "bars": true}. Colours come from the style sheet, so that both themes are right.
"use strict";

const COLOURS = ["--busy", "--good", "--wary", "--bad", "--idle"];
const drawn = new Map();

function colour(name) {
  const probe = document.createElement("span");
  probe.style.color = `var(${name})`;
  document.body.append(probe);
  const found = getComputedStyle(probe).color;
  probe.remove();
  return found;
}

// A lone point would be drawn on an axis of years.
function widened(chart) {
  if (chart.at.length !== 1) return [chart.at, ...chart.lines.map((line) => line.values)];
  return [[chart.at[0] - (chart.least ?? 6 * 3600), chart.at[0]],
          ...chart.lines.map((line) => [null, line.values[0]])];
}

function options(chart, width) {
  const quiet = { stroke: colour("--quiet"), grid: { stroke: colour("--line"), width: 1 },
                  ticks: { stroke: colour("--line"), width: 1 } };
  const label = (_, value) => (value == null ? "–" : `${value.toPrecision(3)} ${chart.unit}`);
  return {
    width, height: chart.height ?? 240, legend: { live: true },
    axes: [quiet, { ...quiet, size: 64, values: (_, all) => all.map((v) => `${v} ${chart.unit}`) }],
    scales: { x: { range: (_, low, high) => [Math.min(low, high - (chart.least ?? 6 * 3600)), high] },
              y: { range: (_, low, high) => [0, (high || 1) * 1.1] } },
    series: [{}, ...chart.lines.map((line, at) => ({
      label: line.label, stroke: colour(COLOURS[at % COLOURS.length]), width: 2,
      dash: at >= COLOURS.length ? [6, 4] : undefined, spanGaps: false, value: label,
      points: { show: chart.at.length < 40 },
    }))],
  };
}

function draw() {
  for (const [where, held] of drawn) {
    if (where.isConnected) continue;
    held.plot.destroy();
    drawn.delete(where);
  }
  for (const where of document.querySelectorAll("[data-chart]")) {
    const text = where.dataset.chart;
    const held = drawn.get(where);
    if (held && held.text === text && held.plot.root.isConnected) continue;
    held?.plot.destroy();
    where.replaceChildren();
    const chart = JSON.parse(text);
    const plot = new uPlot(options(chart, where.clientWidth), widened(chart), where);
    drawn.set(where, { text, plot });
  }
}

// data-trace holds {"unit", "at": [Unix seconds], "lines": [{"label", "values"}]}, the newest part of a
// line: it begins with what the server knew when the page was opened, and grows while that is open.
const traces = new Map();
const TRACE_MOST = 600;

function follow() {
  for (const where of document.querySelectorAll("[data-trace]")) {
    const told = JSON.parse(where.dataset.trace);
    const held = traces.get(where) ?? { at: [], lines: told.lines.map(() => []), plot: null };
    traces.set(where, held);
    const last = held.at.at(-1) ?? -Infinity;
    const first = told.at.findIndex((at) => at > last);
    if (first < 0 && held.plot?.root.isConnected) continue;
    if (first >= 0) {
      held.at.push(...told.at.slice(first));
      told.lines.forEach((line, at) => held.lines[at].push(...line.values.slice(first)));
    }
    if (!held.at.length) continue;
    for (const row of [held.at, ...held.lines]) row.splice(0, row.length - TRACE_MOST);
    held.plot?.destroy();
    where.replaceChildren();
    const chart = { unit: told.unit, at: held.at, least: 300, height: 170,
                    lines: told.lines.map((line, at) => ({ ...line, values: held.lines[at] })) };
    held.plot = new uPlot(options(chart, where.clientWidth), widened(chart), where);
  }
}

function redraw() {
  for (const held of drawn.values()) held.text = "";
  draw();
}

document.addEventListener("kedge:shown", () => {
  draw();
  follow();
});
document.addEventListener("kedge:theme", redraw);
addEventListener("resize", () => {
  for (const [where, held] of drawn) held.plot.setSize({ width: where.clientWidth, height: 240 });
});
draw();
follow();
