"use strict";
(() => {
  const root = document.documentElement;
  const figures = JSON.parse(document.getElementById("figures").textContent);
  const NARROW = 620;
  const config = { displayModeBar: false, responsive: false, displaylogo: false };

  const merged = (base, more) => {
    const out = { ...base };
    for (const [key, value] of Object.entries(more)) {
      const plain = value && typeof value === "object" && !Array.isArray(value);
      out[key] = plain ? merged(base[key] || {}, value) : value;
    }
    return out;
  };
  const at = (layout, path, value) => {
    const keys = path.split(".");
    const last = keys.pop();
    let part = layout;
    for (const key of keys) part = part[key] = { ...part[key] };
    part[last] = value;
  };
  // plotly measures text in the font that it is told, so the style sheet may not set another
  const family = getComputedStyle(document.body).fontFamily;
  const pen = document.createElement("canvas").getContext("2d");
  const NAME = 12, ROOM = 60;
  const fitting = (name, width) => {
    pen.font = `${NAME}px ${family}`;
    return NAME * Math.min(1, (width - ROOM) / pen.measureText(name).width);
  };
  // on a narrow screen the name of a bar stands above it
  const nameAbove = (layout, names, width) => {
    layout.height = 90 + 44 * names.length + (layout.showlegend ? 50 : 0);
    layout.bargap = layout.waterfallgap = 0.64;
    layout.margin = { ...layout.margin, l: 12 };
    layout.yaxis = { ...layout.yaxis, showticklabels: false, range: [-0.5, names.length - 0.3] };
    layout.annotations = names.map((name) => ({
      text: name, x: 0, xref: "paper", xanchor: "left", y: name, yref: "y", yanchor: "bottom", yshift: 6, showarrow: false,
      font: { size: fitting(name, width) },
    }));
  };
  const base = {
    paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", dragmode: false, hovermode: "closest",
    font: { size: 13, family },
    hoverlabel: { bgcolor: "#1f2a36", bordercolor: "#1f2a36", font: { color: "#ffffff", size: 13, family }, align: "left" },
    legend: { orientation: "h", x: 0, y: 1.02, yanchor: "bottom" },
    xaxis: { fixedrange: true, ticks: "" }, yaxis: { fixedrange: true, ticks: "" },
  };
  const draw = (element, width) => {
    const figure = figures[element.dataset.figure];
    const layout = merged(base, figure.layout);
    layout.height = figure.height;
    if (width < NARROW && figure.names.length) nameAbove(layout, figure.names, width);
    if (width < NARROW) for (const [path, value] of Object.entries(figure.narrow)) at(layout, path, value);
    layout.width = width;
    element.dataset.width = width;
    element.style.minHeight = `${layout.height}px`;
    Plotly.react(element, figure.data, layout, config);
  };
  const plots = [...document.querySelectorAll(".plot")];
  // text that is folded away has no size to measure: what is there is drawn when it is unfolded
  const drawAll = (width) => plots.forEach((one) => {
    if (width || one.clientWidth) draw(one, width || one.clientWidth);
  });
  drawAll();
  const refit = () => plots.forEach((one) => {
    if (one.clientWidth && String(one.clientWidth) !== one.dataset.width) draw(one, one.clientWidth);
  });
  const engineers = document.getElementById("engineers");
  engineers.addEventListener("toggle", refit);
  const unfold = (name) => {
    const to = name && document.getElementById(name);
    if (to && engineers.contains(to)) engineers.open = true;
  };
  document.querySelectorAll('a[href^="#"]').forEach((one) => one.addEventListener("click", () => {
    unfold(one.getAttribute("href").slice(1));
  }));
  unfold(location.hash.slice(1));
  let waiting;
  addEventListener("resize", () => {
    clearTimeout(waiting);
    waiting = setTimeout(refit, 120);
  });

  // sliders: the formulas of the plan, printed as a function of what may be moved
  const format = (value, unit) => {
    const three = (x) => (x ? x.toPrecision(Math.abs(x) >= 100 ? Math.max(3, Math.floor(Math.log10(Math.abs(x))) + 1) : 3) : "0");
    const prefixed = (steps) => {
      const [by, prefix] = steps.find(([least]) => Math.abs(value) >= least) || steps[steps.length - 1];
      return `${three(value / by)} ${prefix}${unit}`;
    };
    if (!Number.isFinite(value)) return "-";
    if (unit === "%") return `${(100 * value).toFixed(0)} %`;
    if (unit === "s") return prefixed([[1, ""], [1e-3, "m"], [1e-6, "u"]]);
    if (unit === "B") return prefixed([[1e12, "T"], [1e9, "G"], [1e6, "M"], [1e3, "k"], [1, ""]]);
    return Math.abs(value) >= 1000 ? Math.round(value).toLocaleString("en-US") : three(value);
  };
  const sliders = [...document.querySelectorAll(".slider")].map((one) => ({
    name: one.dataset.move, unit: one.dataset.unit, stops: one.dataset.stops.split(" ").map(Number),
    input: one.querySelector("input"), output: one.querySelector("output"),
  }));
  const here = JSON.parse(document.querySelector(".moving").dataset.here);
  const numbers = [...document.querySelectorAll(".number")];
  const SLACK = 1e-9, FELT = 5e-4;
  const move = () => {
    const values = { ...here };
    for (const { name, unit, stops, input, output } of sliders) {
      values[name] = stops[Number(input.value)];
      output.textContent = unit === "%" ? format(values[name], "%") : values[name].toLocaleString("en-US");
      input.setAttribute("aria-valuetext", output.textContent);
    }
    const found = window.moved(values);
    for (const one of numbers) {
      const value = found[one.dataset.moved], now = Number(one.dataset.now), limit = one.dataset.limit;
      one.dataset.value = value;
      one.querySelector(".shown").textContent = format(value, one.dataset.unit);
      const change = value / now - 1;
      one.querySelector(".change").textContent = Math.abs(change) < FELT ? "" : `${change > 0 ? "+" : ""}${(100 * change).toFixed(1)} %`;
      if (limit !== undefined) {
        const short = "least" in one.dataset ? value < limit * (1 - SLACK) : value > limit * (1 + SLACK);
        one.classList.toggle("over", short);
      }
    }
  };
  sliders.forEach(({ input }) => input.addEventListener("input", move));
  document.getElementById("back").addEventListener("click", () => {
    for (const { input } of sliders) input.value = input.dataset.at;
    move();
  });
  for (const { input } of sliders) input.value = input.dataset.at; // a browser may have kept an older place
  move();

  const button = document.getElementById("theme");
  const dark = () => (root.dataset.theme || (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light")) === "dark";
  const tell = () => button.setAttribute("aria-pressed", String(dark()));
  button.addEventListener("click", () => {
    root.dataset.theme = dark() ? "light" : "dark";
    tell();
  });
  tell();

  document.getElementById("open").addEventListener("click", () => {
    document.querySelectorAll("details").forEach((one) => { one.open = true; });
  });

  // on paper plots are as wide as the page and every table is there, whatever the reader has open
  const PAPER = 680;
  let closed = [];
  addEventListener("beforeprint", () => {
    closed = [...document.querySelectorAll("details:not([open])")];
    for (const one of closed) one.open = true;
    drawAll(PAPER);
  });
  addEventListener("afterprint", () => {
    for (const one of closed) one.open = false;
    drawAll();
  });
})();
