"use strict";
// Draws the charts of the page's data with uPlot, again when the width or the
// colour scheme changes.
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const whole = new Intl.NumberFormat("en-US", { maximumFractionDigits: 0 });
  const tenth = new Intl.NumberFormat("en-US", { maximumFractionDigits: 1 });

  const duration = (s) => {
    s = Math.round(s);
    if (s >= 86400) return Math.floor(s / 86400) + "d" + (s % 86400 >= 3600 ? " " + Math.floor((s % 86400) / 3600) + "h" : "");
    if (s >= 3600) return Math.floor(s / 3600) + "h" + (s % 3600 >= 60 ? " " + Math.floor((s % 3600) / 60) + "m" : "");
    if (s >= 60) return Math.floor(s / 60) + "m" + (s % 60 ? " " + (s % 60) + "s" : "");
    return s + "s";
  };
  const number = (v) => (Math.abs(v) < 100 ? tenth : whole).format(v);
  const write = (unit, v) => {
    if (v == null) return "–";
    if (unit === "seconds") return v > 0 && v < 1 ? whole.format(1e3 * v) + "ms" : v > 0 && v < 10 ? tenth.format(v) + "s" : duration(v);
    if (unit === "share") return tenth.format(100 * v) + " %";
    return number(v);
  };
  // Steps that are round in hours and minutes too.
  const secondSteps = [0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10800, 21600, 43200, 86400, 172800, 432000, 864000];

  // hatched fills a rectangle as time that nobody observed.
  const hatched = (ctx, x, y, width, height) => {
    ctx.save();
    ctx.beginPath();
    ctx.rect(x, y, width, height);
    ctx.clip();
    ctx.globalAlpha = 0.75;
    ctx.strokeStyle = colour("--gap");
    ctx.lineWidth = devicePixelRatio;
    const step = 6 * devicePixelRatio;
    ctx.beginPath();
    for (let at = x - height - ((x - height) % step); at < x + width; at += step) {
      ctx.moveTo(at, y + height);
      ctx.lineTo(at + height, y);
    }
    ctx.stroke();
    ctx.restore();
  };

  const shadeGaps = (chart) => (u) => {
    const { top, height, left, width } = u.bbox;
    for (const [from, to] of chart.gaps) {
      const begin = Math.max(u.valToPos(from, "x", true), left);
      const end = Math.min(u.valToPos(to, "x", true), left + width);
      if (end > begin) hatched(u.ctx, begin, top, Math.max(end - begin, devicePixelRatio), height);
    }
    // What is not over yet is no part of the day.
    const later = Math.max(u.valToPos(chart.later, "x", true), left);
    if (!chart.labels && chart.later < chart.to && later < left + width) {
      u.ctx.save();
      u.ctx.fillStyle = colour("--rule");
      u.ctx.globalAlpha = 0.6;
      u.ctx.fillRect(later, top, left + width - later, height);
      u.ctx.restore();
    }
  };

  const seriesOf = (chart) => {
    let line = 0;
    return chart.series.map((s) => {
      const value = (u, v) => write(chart.unit, v);
      if (s.role !== "line") {
        return { label: s.label, value, stroke: colour("--line-0") + "55", width: 1, points: { show: false } };
      }
      // Dashes show a line that another one covers.
      const dash = [[], [8, 5], [2, 4]][line % 3];
      const stroke = colour("--line-" + (line++ % 3));
      if (chart.kind === "bars") {
        return { label: s.label, value, stroke, fill: stroke + "99", width: 1, paths: uPlot.paths.bars({ size: [0.7, 60] }), points: { show: false } };
      }
      return { label: s.label, value, stroke, width: 2, dash };
    });
  };

  const bandsOf = (chart) => {
    const high = chart.series.findIndex((s) => s.role === "high") + 1;
    const low = chart.series.findIndex((s) => s.role === "low") + 1;
    return high && low ? [{ series: [high, low], fill: colour("--line-0") + "26" }] : [];
  };

  const options = (chart, width) => {
    const rule = { stroke: colour("--rule"), width: 1 };
    const axis = { stroke: colour("--faint"), font: "12px system-ui, sans-serif", grid: rule, ticks: { ...rule, size: 5 } };
    const narrow = width < 500;
    const x = { ...axis, space: narrow ? 60 : 80 };
    // No finer than what there are values of.
    if (chart.daily) x.incrs = [1, 2, 7, 14, 28, 56, 112, 364].map((days) => days * 86400);
    if (chart.labels) {
      Object.assign(x, {
        space: 1, grid: { show: false }, splits: () => chart.x, values: (u, at) => at.map((i) => chart.labels[i]),
        rotate: narrow && chart.labels.length > 4 ? -45 : 0, size: narrow && chart.labels.length > 4 ? 70 : 40,
      });
    } else {
      // The 24-hour clock and ISO dates, as the tables have them.
      x.values = [
        [31536000, "{YYYY}", null, null, null, null, null, null, 1],
        [2419200, "{MMM}", "\n{YYYY}", null, null, null, null, null, 1],
        [86400, "{MMM} {D}", "\n{YYYY}", null, null, null, null, null, 1],
        [3600, "{HH}:00", "\n{MMM} {D}", null, "\n{MMM} {D}", null, null, null, 1],
        [60, "{HH}:{mm}", "\n{MMM} {D}", null, "\n{MMM} {D}", null, null, null, 1],
        [1, "{HH}:{mm}:{ss}", "\n{MMM} {D}", null, "\n{MMM} {D}", null, null, null, 1],
      ];
    }
    const y = { ...axis, size: 62, values: (u, at) => at.map((v) => write(chart.unit, v)) };
    if (chart.unit === "seconds") y.incrs = secondSteps;
    if (chart.unit === "users" || chart.unit === "sessions") y.incrs = [1, 2, 5].flatMap((n) => [0, 1, 2, 3, 4, 5, 6, 7, 8, 9].map((e) => n * 10 ** e)).sort((a, b) => a - b);
    const range = chart.labels ? [-0.5, chart.x.length - 0.5] : [chart.from, chart.to];
    return {
      width, height: narrow ? 220 : 280,
      tzDate: (at) => uPlot.tzDate(new Date(at * 1e3), data.tz),
      scales: {
        x: { time: !chart.labels, range: (u, min, max) => (u.zoomed ? [min, max] : range) },
        y: { range: (u, min, max) => [0, max > 0 ? max * 1.08 : 1] },
      },
      axes: [x, y],
      series: [
        { label: chart.labels ? "platform" : "at", value: chart.labels ? (u, v) => (v == null ? "–" : chart.labels[v]) : "{YYYY}-{MM}-{DD}" + (chart.daily ? "" : " {HH}:{mm}") },
        ...seriesOf(chart),
      ],
      bands: bandsOf(chart),
      // All charts over time show the values of the same time.
      cursor: { drag: { x: !chart.labels, y: false }, ...(chart.labels ? {} : { sync: { key: "time", setSeries: false } }) },
      legend: { show: true },
      hooks: {
        drawClear: [shadeGaps(chart)],
        // Dragging zooms in, a double click shows all again.
        setSelect: [(u) => { u.zoomed = u.select.width > 0; }],
        init: [(u) => u.over.addEventListener("dblclick", () => { u.zoomed = false; }, true)],
      },
    };
  };

  const draw = (place) => {
    const chart = data.charts[Number(place.dataset.chart)];
    if (place.plot) place.plot.destroy();
    place.drawnWidth = place.clientWidth;
    place.plot = new uPlot(options(chart, place.clientWidth), [chart.x, ...chart.series.map((s) => s.values)], place);
  };

  const places = [...document.querySelectorAll(".chart")];
  const drawAll = () => places.forEach(draw);
  drawAll();
  const resized = new ResizeObserver((entries) => {
    for (const { target } of entries) if (target.clientWidth !== target.drawnWidth) draw(target);
  });
  places.forEach((place) => resized.observe(place));
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawAll);

  // A table as CSV, with its texts as they are shown.
  const quoted = (text) => (/[",\n\r]/.test(text) ? '"' + text.replaceAll('"', '""') + '"' : text);
  for (const table of document.querySelectorAll("table[data-file]")) {
    const button = document.createElement("button");
    button.type = "button";
    button.className = "save";
    button.textContent = "CSV";
    button.setAttribute("aria-label", "Save " + table.dataset.file);
    button.addEventListener("click", (event) => {
      event.preventDefault(); // it lies in the summary, which would open or close
      const lines = [...table.rows].map((row) => [...row.cells].map((cell) => quoted(cell.textContent)).join(","));
      const link = document.createElement("a");
      link.href = URL.createObjectURL(new Blob([lines.join("\n") + "\n"], { type: "text/csv" }));
      link.download = table.dataset.file;
      link.click();
      setTimeout(() => URL.revokeObjectURL(link.href), 60000);
    });
    table.closest("details").querySelector("summary").append(button);
  }

  // On paper everything is open.
  addEventListener("beforeprint", () => document.querySelectorAll("details").forEach((d) => { d.dataset.was = d.open; d.open = true; }));
  addEventListener("afterprint", () => document.querySelectorAll("details").forEach((d) => { d.open = d.dataset.was === "true"; }));
  document.documentElement.dataset.drawn = String(places.length);
})();
