"use strict";
(() => {
  const content = [...document.querySelectorAll("script.figure")].map((element) => element.textContent);
  const plots = [...document.querySelectorAll(".plot")];
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const config = { displayModeBar: false, responsive: false, scrollZoom: false, showTips: false };
  let isPrinting = false;

  // ------------------------------------------------------------------------------------------ figures

  const axis = (text, line) => ({
    automargin: true, gridcolor: line, linecolor: line, zerolinecolor: line, tickcolor: line, zeroline: false,
    title: { font: { size: 12, color: text }, standoff: 8 }, tickfont: { color: text }, separatethousands: true,
  });

  function template() {
    const css = getComputedStyle(document.documentElement);
    const light = { text: "#1b1f24", quiet: "#59636e", line: "#d9dee4", hover: "#ffffff", card: "#ffffff" };
    const of = (name) => (isPrinting ? light[name] : css.getPropertyValue(`--${name}`).trim());
    const [text, quiet, line, hover, card] = ["text", "quiet", "line", "hover", "card"].map(of);
    const bar = { tickfont: { color: quiet }, title: { font: { color: quiet } }, outlinewidth: 0, thickness: 12 };
    return {
      layout: {
        font: { family: getComputedStyle(document.body).fontFamily, size: 12, color: text },
        paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
        colorway: ["#2f7ed8", "#d9480f", "#2b9a66", "#9c5de0", "#b08a1e", "#d6336c", "#868e96"],
        margin: { l: 8, r: 12, t: 8, b: 8, pad: 2 },
        xaxis: axis(quiet, line), yaxis: axis(quiet, line),
        legend: { orientation: "h", x: 0, y: 1.02, yanchor: "bottom", font: { color: text } },
        hoverlabel: { bgcolor: hover, bordercolor: line, font: { color: text, size: 12 }, align: "left" },
        annotationdefaults: { font: { color: quiet, size: 11 }, bgcolor: card, borderpad: 0 },
        coloraxis: { colorbar: bar },
        dragmode: false, hovermode: "closest",
      },
      data: { heatmap: [{ colorbar: bar, textfont: { color: text } }] },
    };
  }

  function draw(plot) {
    const figure = JSON.parse(content[Number(plot.dataset.figure)]);
    const layout = { ...figure.layout, template: template(), width: plot.clientWidth, height: plot.clientHeight };
    const names = figure.data.filter((trace) => trace.showlegend !== false && trace.name);
    if (layout.showlegend === undefined) layout.showlegend = names.length > 1;
    const margin = { l: 8, r: 12, t: layout.showlegend ? 34 : 14, b: 8, pad: 2 };
    layout.margin = { ...margin, ...(figure.layout.margin || {}) };
    narrow(layout, plot.clientWidth, plot.clientHeight);
    Plotly.react(plot, figure.data, layout, config);
    plot.dataset.width = plot.clientWidth;
    for (const svg of plot.querySelectorAll("svg")) svg.setAttribute("aria-hidden", "true");
  }

  // Names beside an axis take at most two fifths of the width; below it they stand upright before they would overlap.
  const CHARACTER = 6.5;
  function cut(name, most) {
    if (name.length <= most) return name;
    const tail = Math.floor((most - 1) / 2);
    return `${name.slice(0, most - 1 - tail)}…${name.slice(name.length - tail)}`;
  }
  function narrow(layout, width, height) {
    const { xaxis, yaxis } = layout;
    if (yaxis && yaxis.ticktext) {
      const most = Math.floor(0.4 * width / CHARACTER);
      layout.yaxis = { ...yaxis, ticktext: yaxis.ticktext.map((name) => cut(name, most)) };
    }
    if (!xaxis || !xaxis.ticktext) return;
    const room = 0.85 * width / xaxis.ticktext.length / CHARACTER;
    if (xaxis.ticktext.every((name) => name.length <= room)) {
      layout.xaxis = { ...xaxis, tickangle: 0 };  // or plotly turns them to and fro while it finds the margins
      return;
    }
    const most = Math.floor(0.3 * height / CHARACTER);
    layout.xaxis = { ...xaxis, tickangle: -90, ticktext: xaxis.ticktext.map((name) => cut(name, most)) };
  }

  const isDrawn = (plot) => plot.dataset.width !== undefined;
  const near = new IntersectionObserver((entries) => {
    for (const { isIntersecting, target } of entries) {
      if (isIntersecting && !isDrawn(target)) { near.unobserve(target); draw(target); }
    }
  }, { rootMargin: "600px" });
  const sized = new ResizeObserver((entries) => {
    if (isPrinting) return;
    for (const { target } of entries) {
      if (isDrawn(target) && Number(target.dataset.width) !== target.clientWidth) draw(target);
    }
  });
  for (const plot of plots) { near.observe(plot); sized.observe(plot); }
  dark.addEventListener("change", () => plots.filter(isDrawn).forEach(draw));

  // ----------------------------------------------------------------------------------------- on paper

  function print(isBegun) {
    if (isPrinting === isBegun) return;
    isPrinting = isBegun;
    document.documentElement.classList.toggle("printing", isBegun);
    plots.filter((plot) => isBegun || isDrawn(plot)).forEach(draw);
  }
  addEventListener("beforeprint", () => print(true));
  addEventListener("afterprint", () => print(false));

  // ----------------------------------------------------------------------------------------- commands

  async function copy(text) {
    try {
      await navigator.clipboard.writeText(text);
    } catch {
      const area = document.createElement("textarea");
      area.value = text;
      document.body.append(area);
      area.select();
      document.execCommand("copy");
      area.remove();
    }
  }
  for (const command of document.querySelectorAll(".command")) {
    const button = document.createElement("button");
    button.className = "copy";
    button.type = "button";
    button.textContent = "Copy";
    button.addEventListener("click", async () => {
      await copy(command.querySelector("code").textContent);
      button.textContent = "Copied";
      setTimeout(() => { button.textContent = "Copy"; }, 1500);
    });
    command.append(button);
  }
})();
