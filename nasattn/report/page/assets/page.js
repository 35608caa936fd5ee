"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const root = document.documentElement;
  const css = (name) => getComputedStyle(root).getPropertyValue(name).trim();
  const narrow = () => window.innerWidth < 640;
  const touch = matchMedia("(pointer: coarse)").matches;
  const CIVIDIS = ["#00224e", "#233e6c", "#4c566d", "#6d7074", "#8f8c78", "#b6ab6f", "#dfcc59", "#fee838"];
  const config = { responsive: true, displaylogo: false, scrollZoom: false, modeBarButtonsToRemove: ["lasso2d", "select2d", "autoScale2d"], displayModeBar: touch ? false : "hover" };

  const axis = (more) => ({ gridcolor: css("--line"), linecolor: css("--soft"), zeroline: false, automargin: true, ticks: "outside", tickcolor: css("--line"), ...more, title: { text: more.title || "", standoff: 8, font: { size: 13 } } });
  const layout = (height, more) => ({
    height, autosize: true, paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", dragmode: touch ? false : "zoom", hovermode: "closest",
    font: { family: getComputedStyle(document.body).fontFamily, size: narrow() ? 11 : 12.5, color: css("--ink") }, margin: { l: 44, r: 14, t: 14, b: 40 },
    legend: { orientation: "h", x: 0, y: -0.2, yanchor: "top", itemsizing: "constant" },
    hoverlabel: { bgcolor: css("--ink"), bordercolor: css("--ink"), font: { color: css("--page"), size: 12 }, align: "left" }, ...more,
  });
  const draw = (name, traces, made) => Plotly.react("plot-" + name, traces, made, config);

  const RATIOS = [1, 1.02, 1.05, 1.1, 1.15, 1.2, 1.3, 1.4, 1.6, 1.8, 2, 2.5, 3, 4, 5, 6, 8, 10, 15, 20, 30, 50, 100, 200];
  const ratioAxis = (values) => {
    const [low, high] = [Math.min(...values), Math.max(...values)];
    if (high / low < 1.6) return axis({ title: "latency, times the plain host", ticksuffix: "x", nticks: narrow() ? 5 : 9 });
    const least = Math.log(high / low) / (narrow() ? 6 : 11);
    const ticks = [];
    for (const r of RATIOS) if (r >= low * 0.98 && r <= high * 1.02 && (!ticks.length || Math.log(r / ticks[ticks.length - 1]) > least)) ticks.push(r);
    return axis({ title: "latency, times the plain host (logarithmic)", type: "log", tickvals: ticks, ticktext: ticks.map((t) => t + "x") });
  };

  const colour = (family) => data.colours[family] || "#888888";
  let mode = data.front ? data.front.mode : 0;
  const SIZES = [8, 12, 13];
  const drawn = {
    front() {
      const points = data.front.points;
      const family = (p) => (mode ? p.f[mode - 1] : p.w);
      const names = Object.keys(data.colours).filter((name) => points.some((p) => family(p) === name));
      const traces = [];
      const members = points.filter((p) => p.t > 0);
      traces.push({ x: members.map((p) => p.x), y: members.map((p) => p.a), mode: "lines", line: { shape: "hv", color: css("--soft"), width: 1.5, dash: "dot" }, hoverinfo: "skip", showlegend: false });
      for (const name of names) {
        const mine = points.filter((p) => family(p) === name);
        traces.push({ name, legendgroup: name, x: [null], y: [null], mode: "markers", marker: { color: colour(name), size: 10 }, hoverinfo: "skip" });
        for (const likely of ["no", "perhaps", "member"]) {
          const some = mine.filter((p) => (likely === "member" ? p.t > 0 : p.t === 0 && p.p >= 0.2 === (likely === "perhaps")));
          if (!some.length) continue;
          const bar = (plus, minus) => ({ type: "data", symmetric: false, array: some.map(plus), arrayminus: some.map(minus), color: colour(name) + (likely === "member" ? "" : "66"), thickness: 1.3, width: 3, visible: likely !== "no" });
          traces.push({
            name, legendgroup: name, showlegend: false, x: some.map((p) => p.x), y: some.map((p) => p.a), text: some.map((p) => p.tip), hovertemplate: "%{text}<extra></extra>", mode: "markers",
            error_x: bar((p) => p.h - p.x, (p) => p.x - p.l), error_y: bar((p) => p.e, (p) => p.e),
            marker: {
              color: colour(name), opacity: likely === "no" ? 0.6 : 1, size: some.map((p) => (p.k === 2 ? 17 : SIZES[p.t] + (p.k === 1 ? 2 : 0))),
              symbol: some.map((p) => ["circle", "diamond", "star"][p.k] + (p.t === 1 ? "-open" : "")), line: { width: some.map((p) => (p.t === 1 ? 2.5 : 1)), color: some.map((p) => (p.t === 1 ? colour(name) : css("--card"))) },
            },
          });
        }
      }
      const height = narrow() ? 430 : 500;
      draw("front", traces, layout(height, { xaxis: ratioAxis(points.map((p) => p.x)), yaxis: axis({ title: "accuracy of the proxy, %" }), legend: { orientation: "h", x: 0, y: narrow() ? -0.2 : -0.15, yanchor: "top", itemsizing: "constant" } }));
      document.querySelectorAll("[data-mode]").forEach((b) => b.setAttribute("aria-pressed", String(Number(b.dataset.mode) === mode)));
    },
    growth() {
      const traces = [];
      for (const g of data.growth) {
        const own = g.source === "study";
        const hue = own ? colour(Object.keys(data.colours)[1]) : css("--soft");
        if (g.low) {
          const line = { color: "rgba(128,136,150,0)", shape: "hv" };
          traces.push({ x: g.x, y: g.low, mode: "lines", line, hoverinfo: "skip", showlegend: false });
          traces.push({ x: g.x, y: g.high, mode: "lines", line, fill: "tonexty", fillcolor: "rgba(128,136,150,0.22)", hoverinfo: "skip", showlegend: false });
        }
        traces.push({ name: g.name, x: g.x, y: g.y, mode: "lines", line: { shape: "hv", width: own ? 2.5 : 1.8, color: own ? "#4477AA" : hue, dash: own ? "solid" : "dash" }, hovertemplate: "%{y:.3f} after %{x:.1f} min<extra>" + g.name + "</extra>" });
      }
      draw("growth", traces, layout(340, { xaxis: axis({ title: "training, minutes of all workers", rangemode: "tozero" }), yaxis: axis({ title: "hypervolume", range: [0, 1.02] }) }));
    },
    parallel() { drawParallel(); },
    importance() {
      const { stages } = data.importance;
      const bars = [["accuracy", "#4477AA"], ["latency", "#EE7733"]].filter(([name]) => data.importance[name]);
      const traces = bars.map(([name, hue]) => ({ type: "bar", name: "for " + name, x: stages, y: data.importance[name], marker: { color: hue }, hovertemplate: "%{y:.0%}<extra>for " + name + "</extra>" }));
      draw("importance", traces, layout(300, { barmode: "group", bargap: 0.35, xaxis: axis({}), yaxis: axis({ title: "share", tickformat: ".0%", rangemode: "tozero" }) }));
    },
    proxy() {
      const { points, longer } = data.proxy;
      const names = Object.keys(data.colours).filter((name) => points.some((p) => p.w === name));
      const traces = names.map((name) => {
        const mine = points.filter((p) => p.w === name);
        return {
          name, mode: "markers", x: mine.map((p) => p.x), y: mine.map((p) => p.y), text: mine.map((p) => p.tip), hovertemplate: "%{text}<extra></extra>", marker: { color: colour(name), size: 10, line: { width: 1, color: css("--card") } },
          error_y: { type: "data", symmetric: false, array: mine.map((p) => p.high - p.y), arrayminus: mine.map((p) => p.y - p.low), color: colour(name), thickness: 1.2, width: 3 },
        };
      });
      draw("proxy", traces, layout(380, { xaxis: axis({ title: "accuracy of the proxy, %" }), yaxis: axis({ title: `trained ${longer} times longer, %` }) }));
    },
  };

  const filters = new Map(); // stage -> token, both by index
  function drawParallel() {
    const { tokens, rows } = data.parallel;
    const stages = tokens.length;
    const [ratios, accuracies] = [rows.map((r) => r.x), rows.map((r) => r.a)];
    const scaled = (v, low, high) => (high > low ? 0.02 + (0.96 * (v - low)) / (high - low) : 0.5);
    const [fast, slow] = [Math.log(Math.min(...ratios)), Math.log(Math.max(...ratios))];
    const [worst, best] = [Math.min(...accuracies), Math.max(...accuracies)];
    const heights = rows.map(() => []);
    tokens.forEach((names, s) => names.forEach((_, t) => {
      const through = rows.map((_r, i) => i).filter((i) => rows[i].i[s] === t).sort((a, b) => rows[a].a - rows[b].a);
      through.forEach((i, place) => { heights[i][s] = (t + 0.5 + 0.62 * ((place + 0.5) / through.length - 0.5)) / names.length; });
    }));
    rows.forEach((r, i) => heights[i].push(scaled(Math.log(r.x), fast, slow), scaled(r.a, worst, best)));
    const kept = (r) => [...filters].every(([s, t]) => r.i[s] === t);
    const dark = css("--page") < "#8";
    const shades = dark ? CIVIDIS.map((c, i) => ["#3d5a8a", "#4a6491", "#66718a", "#7d8085"][i] || c) : CIVIDIS.map((c, i) => (i > 5 ? ["#cdb64e", "#e3bd22"][i - 6] : c));
    const order = rows.map((_, i) => i).sort((a, b) => rows[a].a - rows[b].a);
    const groups = shades.map((shade) => ({ shade, on: [] }));
    const off = [];
    order.forEach((i, rank) => (kept(rows[i]) ? groups[Math.min(7, Math.floor((8 * rank) / order.length))].on.push(i) : off.push(i)));
    const at = [...tokens.keys(), stages, stages + 1];
    const line = (some, hue, width, hover) => ({
      mode: "lines", x: some.flatMap(() => [...at, null]), y: some.flatMap((i) => [...heights[i], null]), line: { color: hue, width, shape: "linear" }, connectgaps: false, showlegend: false,
      ...(hover ? { text: some.flatMap((i) => [...at.map(() => rows[i].tip), null]), hovertemplate: "%{text}<extra></extra>" } : { hoverinfo: "skip" }),
    });
    const thick = rows.length > 120 ? 1.1 : 1.8;
    const traces = [...(off.length ? [line(off, "rgba(128,136,150,0.16)", 1, false)] : []), ...groups.filter((g) => g.on.length).map((g) => line(g.on, g.shade, thick, true))];
    const ground = css("--card");
    const annotations = [];
    tokens.forEach((names, s) => names.forEach((name, t) => annotations.push({
      x: s, y: (t + 0.5) / names.length, text: filters.get(s) === t ? `<b>${name}</b>` : name, showarrow: false, xanchor: "center", captureevents: true, bgcolor: ground, opacity: 0.92, borderpad: 1,
      bordercolor: filters.get(s) === t ? css("--ink") : "rgba(0,0,0,0)", font: { size: names.length > 24 ? 9 : 11 }, name: `${s}:${t}`,
    })));
    const ends = (x, low, high, names) => [0, 0.25, 0.5, 0.75, 1].forEach((f) => annotations.push({ x, y: 0.02 + 0.96 * f, text: names(low + f * (high - low)), showarrow: false, xanchor: "left", xshift: 4, bgcolor: ground, opacity: 0.9, borderpad: 1, font: { size: 11, color: css("--soft") } }));
    ends(stages, fast, slow, (v) => Math.exp(v).toFixed(2) + "x");
    ends(stages + 1, worst, best, (v) => v.toFixed(1) + " %");
    const titles = [...tokens.map((_, s) => `stage ${s + 1}`), "latency", "accuracy"];
    const shapes = at.map((x) => ({ type: "line", x0: x, x1: x, y0: 0, y1: 1, line: { color: css("--line"), width: 1.5 }, layer: "below" }));
    const height = Math.max(420, 24 * Math.max(...tokens.map((t) => t.length)) + 80);
    draw("parallel", traces, layout(height, {
      annotations, shapes, dragmode: false, margin: { l: 40, r: 64, t: 34, b: 12 }, yaxis: { visible: false, range: [-0.01, 1.01], fixedrange: true },
      xaxis: { side: "top", tickvals: at, ticktext: titles, range: [-0.08, stages + 1.06], showgrid: false, zeroline: false, fixedrange: true, ticks: "" },
    }));
    const place = document.getElementById("plot-parallel");
    if (!place.dataset.listens) {
      place.dataset.listens = "yes";
      place.on("plotly_clickannotation", (event) => {
        const [s, t] = String(event.annotation.name || "").split(":").map(Number);
        if (Number.isNaN(t) || t === undefined) return;
        if (filters.get(s) === t) filters.delete(s); else filters.set(s, t);
        drawParallel();
      });
    }
  }

  const wanted = Object.keys(drawn).filter((name) => data[name] && document.getElementById("plot-" + name));
  const redraw = () => wanted.forEach((name) => drawn[name]());
  const next = (i) => {
    if (i === wanted.length) { root.dataset.drawn = String(i); return; }
    drawn[wanted[i]]();
    setTimeout(() => next(i + 1), 0); // between two plots the page answers
  };
  setTimeout(() => next(0), 0);

  document.querySelectorAll("[data-mode]").forEach((button) => button.addEventListener("click", () => { mode = Number(button.dataset.mode); drawn.front(); }));
  document.querySelectorAll("[data-grid]").forEach((button) => button.addEventListener("click", () => {
    document.querySelectorAll("[data-grid]").forEach((b) => b.setAttribute("aria-pressed", String(b === button)));
    document.querySelectorAll("[data-shown]").forEach((d) => { d.hidden = d.dataset.shown !== button.dataset.grid; });
  }));
  const system = matchMedia("(prefers-color-scheme: dark)");
  document.getElementById("theme").addEventListener("click", () => {
    const dark = root.dataset.theme ? root.dataset.theme === "dark" : system.matches;
    root.dataset.theme = dark ? "light" : "dark";
    redraw();
  });
  system.addEventListener("change", redraw);
  let width = window.innerWidth;
  window.addEventListener("resize", () => { // narrow and wide pages have other sizes of text
    if ((width < 640) !== narrow()) redraw();
    width = window.innerWidth;
  });

  const tip = document.getElementById("tip");
  const show = (event) => {
    const cell = event.target.closest ? event.target.closest("[data-tip]") : null;
    if (!cell) { tip.hidden = true; return; }
    tip.textContent = cell.dataset.tip;
    tip.hidden = false;
    const [box, own] = [cell.getBoundingClientRect(), tip.getBoundingClientRect()];
    tip.style.left = Math.max(8, Math.min(box.left, window.innerWidth - own.width - 8)) + "px";
    tip.style.top = (box.top > own.height + 12 ? box.top - own.height - 6 : Math.min(box.bottom + 6, window.innerHeight - own.height - 8)) + "px";
  };
  for (const kind of ["mouseover", "focusin", "click"]) document.addEventListener(kind, show);
  window.addEventListener("scroll", () => { tip.hidden = true; }, { passive: true });
})();
