// What a user does: drops, pointers, keys, buttons. The last script, which starts the engine.
(() => {
  "use strict";
  const { app, results } = globalThis.hymunet;
  const { at, view } = app;
  const on = (id, name, handler) => at(id).addEventListener(name, handler);

  // files: dropped anywhere, chosen, pasted
  let depth = 0;
  const carriesFiles = (event) => [...(event.dataTransfer?.types || [])].includes("Files");
  addEventListener("dragenter", (event) => {
    if (carriesFiles(event)) document.body.classList.toggle("dropping", ++depth > 0);
  });
  addEventListener("dragleave", (event) => {
    if (carriesFiles(event)) document.body.classList.toggle("dropping", --depth > 0);
  });
  addEventListener("dragover", (event) => event.preventDefault());
  addEventListener("drop", (event) => {
    event.preventDefault();
    depth = 0;
    document.body.classList.remove("dropping");
    app.add(event.dataTransfer.files);
  });
  addEventListener("paste", (event) => app.add(event.clipboardData?.files || []));
  for (const id of ["choose", "add"]) on(id, "click", () => at("files").click());
  on("files", "change", (event) => {
    app.add(event.target.files);
    event.target.value = ""; // the same file may be chosen again
  });

  // the view
  on("zoom-in", "click", () => view.zoom(1.25));
  on("zoom-out", "click", () => view.zoom(0.8));
  on("fit", "click", () => view.fit());
  on("threshold", "input", (event) => app.setThreshold(Number(event.target.value)));
  on("threshold", "change", () => app.current?.rows && app.say(results.spoken(app.current)));
  on("threshold-reset", "click", () => {
    app.setThreshold(app.info.threshold);
    at("threshold").focus(); // the button goes
  });
  on("opacity", "input", app.controls);
  on("outline", "change", app.controls);

  // the scale
  function setScale(spacing, items = [app.current]) {
    for (const item of items) {
      item.spacing = spacing;
      if (item.state !== "done") continue;
      app.measure(item);
      app.refresh(item);
    }
    app.say(results.spoken(app.current));
  }
  app.startRuler = () => {
    if (app.current?.state !== "done") return;
    view.measuring = true;
    view.ruler = null;
    view.draw();
    at("canvas").classList.add("ruler");
    at("ruler").setAttribute("aria-pressed", "true");
    at("length").hidden = true;
    app.say("Draw a line along something whose length you know, such as a ruler in the picture.");
  };
  app.cancelRuler = () => {
    view.measuring = false;
    view.ruler = null;
    view.draw();
    at("canvas").classList.remove("ruler");
    at("ruler").setAttribute("aria-pressed", "false");
    at("length").hidden = true;
  };
  app.askLength = () => {
    at("length").hidden = false;
    at("length-mm").focus();
  };
  on("ruler", "click", () => (view.measuring ? app.cancelRuler() : app.startRuler()));
  on("length-cancel", "click", app.cancelRuler);
  on("length", "submit", (event) => {
    event.preventDefault();
    const millimetres = Number(at("length-mm").value);
    const { from, to } = view.ruler;
    if (!(millimetres > 0)) return;
    const size = millimetres / Math.hypot(to[0] - from[0], to[1] - from[1]);
    app.cancelRuler();
    setScale([size, size]);
  });
  on("mm-per-px", "change", (event) => {
    const size = Number(event.target.value);
    setScale(size > 0 ? [size, size] : null);
  });
  on("scale-all", "click", () => setScale(app.current.spacing, app.items));

  // the user's own mask
  on("compare-choose", "click", () => at("mask-file").click());
  on("mask-file", "change", (event) => {
    if (event.target.files[0]) app.compare(event.target.files[0]);
    event.target.value = "";
  });
  on("compare-remove", "click", () => {
    app.current.reference = null;
    app.compute(app.current);
    app.refresh(app.current);
    at("compare-choose").focus();
  });

  // downloads
  const stem = () => app.current.name.replace(/\.[^.]*$/, "");
  const saveMask = async () => results.save(await results.maskPng(app.current, app.info), `${stem()}_mask.png`);
  const saveText = (text, name, type) => results.save(new Blob([text], { type }), name);
  on("save-mask", "click", saveMask);
  on("save-overlay", "click", async () =>
    results.save(await results.overlayPng(app.current, view.shown), `${stem()}_overlay.png`),
  );
  on("save-json", "click", () => {
    const failed = app.items.filter(({ state }) => state === "failed");
    const threshold = app.info.activation === "softmax" ? null : app.threshold;
    saveText(results.asJson(app.done(), failed, app.info, threshold), "measurements.json", "application/json");
  });
  on("save-csv", "click", () => saveText(results.asCsv(app.done()), "measurements.csv", "text/csv"));

  // help, and keys; single keys can be switched off, since some people's tools type them (WCAG 2.1.4)
  const help = at("help");
  const openHelp = () => help.open || help.showModal();
  on("help-open", "click", openHelp);
  const toggle = (id) => {
    at(id).checked = !at(id).checked;
    app.controls();
  };
  let tint = "25";
  const toggleTint = () => {
    const opacity = at("opacity");
    if (Number(opacity.value)) tint = opacity.value;
    opacity.value = Number(opacity.value) ? "0" : tint;
    app.controls();
  };
  const nudge = (by) => {
    if (at("threshold-row").hidden) return;
    app.setThreshold(Math.min(0.99, Math.max(0.01, Math.round(100 * (app.threshold + by)) / 100)));
  };
  const KEYS = {
    "+": () => view.zoom(1.25),
    "=": () => view.zoom(1.25),
    "-": () => view.zoom(0.8),
    0: () => view.fit(),
    c: () => toggle("outline"),
    t: toggleTint,
    r: () => (view.measuring ? app.cancelRuler() : app.startRuler()),
    d: () => app.current?.state === "done" && saveMask(),
    o: () => at("files").click(),
    "?": openHelp,
    "[": () => nudge(-0.01),
    "]": () => nudge(0.01),
    ArrowLeft: () => app.step(-1),
    ArrowRight: () => app.step(1),
  };
  const ARROWS = { ArrowLeft: [40, 0], ArrowRight: [-40, 0], ArrowUp: [0, 40], ArrowDown: [0, -40] };
  addEventListener("keydown", (event) => {
    if (event.key === "Escape" && view.measuring) return app.cancelRuler();
    const typing = event.target.matches?.("input:not([type=checkbox]), summary");
    if (typing || help.open || event.ctrlKey || event.metaKey || event.altKey || !at("keys-on").checked) return;
    if (event.shiftKey && ARROWS[event.key] && view.layers) view.pan(...ARROWS[event.key]);
    else if (event.key === " " && !event.target.matches?.("button, input")) {
      view.shown.alone = true;
      view.draw();
    } else if (KEYS[event.key]) KEYS[event.key]();
    else return;
    event.preventDefault();
  });
  addEventListener("keyup", (event) => {
    if (event.key !== " " || !view.shown.alone) return;
    view.shown.alone = false;
    view.draw();
  });

  // the model, when the scripts of the engine have come
  async function begin() {
    if (document.readyState !== "complete") {
      await new Promise((resolve) => addEventListener("DOMContentLoaded", resolve, { once: true }));
    }
    const { engine } = globalThis.hymunet;
    if (!engine) throw new Error("the page is incomplete: a script is missing beside it; copy the whole folder, or export it again");
    at("privacy").textContent =
      engine.place === "browser"
        ? "Pictures never leave this browser: the model runs here."
        : `Pictures are sent to ${location.host} and nowhere else.`;
    at("formats").textContent = engine.formats;
    const info = (app.info = await engine.info());
    app.threshold = info.threshold ?? 0.5;
    at("model-name").textContent = info.name || info.id || "";
    at("threshold-row").hidden = info.activation === "softmax";
    const bound = /\bNC\b/.test(info.licence || "") ? ", no commercial use" : "";
    const rows = {
      Name: info.name || info.id,
      Finds: info.classes.join(", "),
      Licence: info.licence ? info.licence + bound : "not stated: that of its training data applies",
      Threshold: info.activation === "softmax" ? null : info.threshold,
      "Masks are cleaned up": Object.entries(info.postprocess || {})
        .map(([name, chosen]) => `${name}: ${chosen.join(", ").replaceAll("_", " ")}`)
        .join("; "),
      Runs: engine.place === "browser" ? "in this browser; pictures stay here" : `on ${location.host}`,
    };
    at("about").replaceChildren(
      ...Object.entries(rows)
        .filter(([, value]) => value !== null && value !== undefined && value !== "")
        .flatMap(([name, value]) => [results.element("dt", {}, name), results.element("dd", {}, String(value))]),
    );
    app.controls();
    at("engine-state").textContent = `Ready. Finds: ${info.classes.join(", ")}.`;
    document.body.dataset.ready = "yes";
    return info;
  }

  app.controls();
  app.ready = begin();
  app.ready.catch((error) => {
    at("engine-state").textContent = error.message;
    at("engine-state").classList.add("problem");
    app.say(error.message);
  });
})();
