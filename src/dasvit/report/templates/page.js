"use strict";
(() => {
  const root = document.documentElement;
  const keep = (store, key, value) => { try { store.setItem(key, value); } catch (error) { /* no storage */ } };
  const kept = (store, key) => { try { return store.getItem(key); } catch (error) { return null; } };

  // Light and dark: what the system says, until the button is pressed.
  const button = document.getElementById("theme");
  const isDark = () => root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  const name = () => { button.querySelector(".what").textContent = isDark() ? "Light" : "Dark"; };
  button.addEventListener("click", () => {
    root.dataset.theme = isDark() ? "light" : "dark";
    keep(localStorage, "dasvit-theme", root.dataset.theme);
    name();
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", name);
  name();

  // The mixture, epoch by epoch.
  const figure = document.getElementById("mixture");
  const curve = (points, shift, begin) => points.map(([x, y], i) => {
    if (!i) return `${begin}${(x + shift).toFixed(1)} ${y.toFixed(1)}`;
    const [px, py] = points[i - 1], middle = ((py + y) / 2).toFixed(1);
    if (Math.abs(px - x) < 0.05) return `V${y.toFixed(1)}`;
    return `C${(px + shift).toFixed(1)} ${middle} ${(x + shift).toFixed(1)} ${middle} ${(x + shift).toFixed(1)} ${y.toFixed(1)}`;
  }).join("");
  if (figure) {
    const data = JSON.parse(document.getElementById("frames").textContent);
    const input = document.getElementById("epoch"), shown = document.getElementById("shown"), play = document.getElementById("play");
    const groups = [...figure.querySelectorAll(".mixture")].map((group) => ({
      group, points: JSON.parse(group.dataset.points), parts: [...group.querySelectorAll(".ribbon")], text: group.querySelector(".leader"),
    }));
    const several = new Set(data.frames.map((frame) => frame.stage)).size > 1;
    const draw = () => {
      const frame = data.frames[Number(input.value)];
      groups.forEach(({ points, parts, text }, e) => {
        const weights = frame.weights[e], total = weights.reduce((sum, w) => sum + w, 0) || 1;
        let left = -12, best = 0;
        parts.forEach((part, o) => {
          const width = 24 * weights[o] / total;
          part.setAttribute("d", width ? curve(points, left, "M") + curve([...points].reverse(), left + width, "L") + "Z" : "");
          left += width;
          if (weights[o] > weights[best]) best = o;
        });
        text.textContent = `${data.operations[best]} ${weights[best].toFixed(2)}`;
      });
      shown.textContent = `epoch ${frame.epoch}${several ? `, stage ${frame.stage}` : ""}`;
      input.setAttribute("aria-valuetext", shown.textContent);
    };
    let timer = 0;
    const stop = () => { clearInterval(timer); timer = 0; play.textContent = "▶"; play.setAttribute("aria-label", "Play the epochs"); };
    const step = () => { if (Number(input.value) >= Number(input.max)) return stop(); input.value = Number(input.value) + 1; draw(); };
    play.addEventListener("click", () => {
      if (timer) return stop();
      if (input.value === input.max) { input.value = 0; draw(); }
      timer = setInterval(step, Math.max(40, Math.min(500, 8000 / data.frames.length)));
      play.textContent = "❚❚";
      play.setAttribute("aria-label", "Stop");
    });
    input.addEventListener("input", () => { if (timer) stop(); draw(); });
    draw();
  }

  // The token maps, epoch by epoch.
  const tokens = document.getElementById("token-frames");
  if (tokens) {
    const { grid, frames } = JSON.parse(tokens.textContent);
    const input = document.getElementById("token-epoch"), shown = document.getElementById("token-shown");
    const several = new Set(frames.map((frame) => frame.stage)).size > 1;
    const isInside = (place) => place + 0.5 >= grid / 4 && place + 0.5 < 3 * grid / 4;
    const isKept = (bits, patch) => parseInt(bits[patch >> 2], 16) >> (3 - (patch & 3)) & 1;
    const paint = (item, bits, label) => {
      let path = "", kept = 0, inside = 0;
      for (let y = 0; y < grid; y++) {
        let run = 0;
        for (let x = 0; x <= grid; x++) {
          const free = x === grid || isKept(bits, y * grid + x);
          if (free && run) path += `M${x - run} ${y}h${run}v1h${-run}z`;
          run = free ? 0 : run + 1;
          if (x < grid && free) { kept++; inside += isInside(x) && isInside(y); }
        }
      }
      item.querySelector(".left-out").setAttribute("d", path);
      const share = Math.round(100 * inside / Math.max(1, kept));
      item.querySelector("svg").setAttribute("aria-label", `${label}: ${kept} of ${grid * grid} patches kept, ${share} % of them in the middle`);
    };
    const draw = () => {
      const frame = frames[Number(input.value)];
      document.querySelectorAll(".token-row").forEach((row, image) => {
        row.querySelectorAll("li:not(.whole)").forEach((item, layer) => {
          item.hidden = layer >= frame.kept.length;
          if (!item.hidden) paint(item, frame.kept[layer][image], `${row.dataset.name}, layer ${layer + 1}`);
        });
      });
      shown.textContent = `epoch ${frame.epoch}${several ? `, stage ${frame.stage}` : ""}`;
      input.setAttribute("aria-valuetext", shown.textContent);
    };
    input.addEventListener("input", draw);
    draw();
  }

  // The values under the pointer, from the table behind each chart.
  document.querySelectorAll(".chart").forEach((chart) => {
    const svg = chart.querySelector("svg"), table = chart.querySelector("table");
    if (!svg || !table) return;
    const heads = [...table.tHead.rows[0].cells].map((cell) => cell.textContent);
    const rows = [...table.tBodies[0].rows];
    const epochs = rows.map((row) => Number(row.cells[0].textContent));
    const left = 46, right = Number(chart.dataset.right), last = Number(chart.dataset.epochs);
    let tip = null, guide = null;
    const hide = () => { tip?.remove(); guide?.remove(); tip = guide = null; };
    svg.addEventListener("pointermove", (event) => {
      const box = svg.getBoundingClientRect(), scale = 360 / box.width;
      const x = (event.clientX - box.left) * scale;
      if (!epochs.length || x < left - 8 || x > right + 8) return hide();
      const wanted = 1 + (x - left) / (right - left) * (last - 1);
      let i = 0;
      epochs.forEach((epoch, j) => { if (Math.abs(epoch - wanted) < Math.abs(epochs[i] - wanted)) i = j; });
      if (!tip) {
        tip = chart.appendChild(document.createElement("div"));
        tip.className = "tip";
        tip.setAttribute("aria-hidden", "true");
        guide = svg.appendChild(document.createElementNS("http://www.w3.org/2000/svg", "path"));
        guide.setAttribute("class", "guide");
      }
      const at = left + (epochs[i] - 1) / (last - 1) * (right - left);
      guide.setAttribute("d", `M${at} 16V186`);
      tip.replaceChildren();
      tip.appendChild(document.createElement("b")).textContent = `epoch ${epochs[i]}`;
      [...rows[i].cells].slice(1).forEach((cell, j) => {
        if (cell.textContent) tip.appendChild(document.createElement("div")).textContent = `${heads[j + 1]}: ${cell.textContent}`;
      });
      const place = (svg.offsetLeft ?? 0) + at / scale;
      const chartBox = chart.getBoundingClientRect();
      const mark = box.left - chartBox.left + at / scale;
      tip.style.left = `${mark + tip.offsetWidth + 14 > chartBox.width ? Math.max(0, mark - tip.offsetWidth - 10) : mark + 10}px`;
      tip.style.top = `${box.top - chartBox.top + 18}px`;
    });
    svg.addEventListener("pointerleave", hide);
  });

  // While the run lives: reload, and come back to the same place with the same things open.
  const status = document.querySelector(".status[data-live]");
  const memory = `dasvit-view:${location.pathname}`;
  const open = () => [...document.querySelectorAll("details")].map((details) => details.open);
  const before = kept(sessionStorage, memory);
  if (before) {
    try {
      const view = JSON.parse(before);
      const all = document.querySelectorAll("details");
      if (all.length === view.open.length) all.forEach((details, i) => { details.open = view.open[i]; });
      if (view.focus) document.getElementById(view.focus)?.focus({ preventScroll: true });
      scrollTo(0, view.y);
    } catch (error) { /* another page's memory */ }
  }
  if (status) {
    const written = Number(status.dataset.written) * 1000, pace = Number(status.dataset.pace) * 1000;
    const patience = Math.max(120000, 5 * pace);
    const since = () => {
      const seconds = Math.max(0, Math.round((Date.now() - written) / 1000));
      return seconds < 100 ? `${seconds} s` : `${Math.round(seconds / 60)} min`;
    };
    const tick = () => {
      const stale = Date.now() - written > patience;
      status.classList.toggle("stale", stale);
      status.querySelector(".age").textContent = stale ? `No news for ${since()}: the run may have stopped.` : `Written ${since()} ago.`;
    };
    tick();
    setInterval(tick, 1000);
    const reload = () => {
      const reading = document.hidden || String(getSelection()) || document.getElementById("play")?.getAttribute("aria-label") === "Stop";
      if (reading) return void setTimeout(reload, 2000);
      keep(sessionStorage, memory, JSON.stringify({ y: scrollY, open: open(), focus: document.activeElement?.id }));
      location.reload();
    };
    setTimeout(reload, Date.now() - written > patience ? 60000 : Math.max(3000, Math.min(30000, pace / 3)));
  }
})();
