// The slider, the layer menu and the two colour modes of the static squeeze page; every number comes from the page itself.
const plots = JSON.parse(document.getElementById("plots").textContent);
const layers = JSON.parse(document.getElementById("layers").textContent);
const slider = document.getElementById("slider");
const menu = document.getElementById("layer");
const names = slider.dataset.names.split("|");
const dark = matchMedia("(prefers-color-scheme: dark)");
const config = {displaylogo: false, responsive: true, modeBarButtons: [["toImage", "zoom2d", "resetScale2d"]],
                toImageButtonOptions: {format: "svg", filename: "squeeze"}};

function draw(name, plot, answer, table) {
  Plotly.react("plot-" + name, plot.data, plot.layout, config);
  if (answer !== undefined) document.getElementById("answer-" + name).textContent = answer;
  if (table !== undefined) document.getElementById("table-" + name).innerHTML = table;
}

function cell(row, kind, text) {
  const entry = document.createElement(kind);
  entry.textContent = text;
  row.appendChild(entry);
}

function drawHistogram(stop, mode) {
  const layer = layers[menu.selectedIndex], after = layer.stops[stop], form = plots.histogram[mode];
  const width = (layer.high - layer.low) / layer.counts.length;
  const centres = layer.counts.map((_, bin) => layer.low + (bin + 0.5) * width);
  const data = [layer.counts, after.counts].map((counts, side) => ({...form.data[side], x: centres, y: counts, width: width}));
  const line = {color: form.level, width: 2, dash: "dash"};
  const shapes = after.levels.map(level => ({type: "line", x0: level, x1: level, y0: 0, y1: 1, yref: "paper", line: line}));
  const xaxis = {...form.layout.xaxis, range: [layer.low, layer.high]};
  const quantized = after.counts.length > 0;
  draw("histogram", {data: quantized ? data : data.slice(0, 1), layout: {...form.layout, xaxis: xaxis, shapes: shapes}}, after.answer);
  const table = document.createElement("table");
  cell(table.createCaption(), "span", "Weights in each bin of values");
  const head = table.createTHead().insertRow();
  for (const label of ["from", "to", "original", ...(quantized ? ["quantized"] : [])]) cell(head, "th", label);
  const body = table.createTBody();
  layer.counts.forEach((count, bin) => {
    const row = body.insertRow(), low = layer.low + bin * width;
    for (const value of [low.toPrecision(3), (low + width).toPrecision(3), count, ...(quantized ? [after.counts[bin]] : [])]) {
      cell(row, "td", value);
    }
  });
  document.getElementById("table-histogram").replaceChildren(table);
}

function show() {
  const stop = Number(slider.value), mode = dark.matches ? "dark" : "light";
  slider.setAttribute("aria-valuetext", names[stop]);
  document.getElementById("bits").textContent = names[stop];
  for (const part of document.querySelectorAll(".stop")) part.hidden = Number(part.dataset.stop) !== stop;
  for (const name of ["map", "ledger"]) {
    const drawn = plots.stops[stop][name];
    draw(name, drawn[mode], drawn.answer, drawn.table);
  }
  drawHistogram(stop, mode);
  draw("curve", plots.curve[mode]);
}

slider.addEventListener("input", show);
menu.addEventListener("change", show);
dark.addEventListener("change", show);
show();
document.getElementById("plot-map").on("plotly_click", event => {
  const name = event.points[0].customdata, index = [...menu.options].findIndex(option => option.text === name);
  if (index >= 0) {
    menu.selectedIndex = index;
    show();
  }
});
