// The pictures and what is known of them: from a dropped file to what the page shows.
(() => {
  "use strict";
  const hymunet = (globalThis.hymunet ??= {});
  const { masks, pictures, results, view: drawing } = hymunet;
  const { element } = results;
  const at = (id) => document.getElementById(id);

  const app = {
    items: [], // pictures, in the order in which they came
    current: null,
    info: null, // of the model
    threshold: 0.5,
    at,
  };

  const view = (app.view = new drawing.View(at("canvas"), {
    onChange: (scale) => (at("zoom").textContent = `${Math.round(100 * scale)} %`),
    onLine: () => app.askLength(),
  }));

  app.say = (text) => (at("live").textContent = text);

  /** Takes files in; they are segmented one after the other. */
  app.add = (files) => {
    const fresh = [...files].map((file) => ({ file, name: file.name || "pasted.png", state: "waiting" }));
    if (!fresh.length) return;
    app.items.push(...fresh);
    for (const item of fresh) {
      // shown before the model has spoken; what the browser cannot read, a server may
      item.decoded = pictures.decode(item.file).then(
        (bitmap) => Object.assign(item, { bitmap, width: bitmap.width, height: bitmap.height }),
        () => null,
      );
      item.decoded.then(() => app.refresh(item));
    }
    if (!app.current || app.current.state === "failed") app.choose(fresh[0]);
    app.list();
    work();
  };

  let working = false;
  async function work() {
    if (working) return;
    working = true;
    for (let item; (item = app.items.find(({ state }) => state === "waiting")); ) {
      try {
        app.info ??= await app.ready;
        item.state = "working";
        app.refresh(item);
        const found = await hymunet.engine.segment(item.file);
        await item.decoded;
        const { width, height, probability, mask, spacing } = found;
        if (item.bitmap && (item.width !== width || item.height !== height)) item.bitmap = null;
        Object.assign(item, { width, height, probability, own: mask, spacing, state: "done" });
        app.compute(item);
        app.say(results.spoken(item));
      } catch (error) {
        Object.assign(item, { state: "failed", error: error.message });
        app.say(`${item.name} failed: ${error.message}`);
      }
      app.refresh(item);
    }
    working = false;
  }

  /** Mask, outlines and numbers of a picture at the present threshold. */
  app.compute = (item) => {
    const { info, threshold } = app;
    const { width, height } = item;
    const cuts = info.activation !== "softmax" && item.probability.length;
    if (cuts && threshold !== info.threshold) {
      const raw = masks.cut(item.probability, threshold);
      item.mask = masks.postprocess(raw, width, height, info.classes, info.nested, info.postprocess);
    } else item.mask = item.own; // the model's own, to the last pixel
    item.cut = threshold;
    item.layers = {
      bitmap: item.bitmap,
      width,
      height,
      tint: drawing.tinted(item.mask, width, height),
      outlines: info.classes.map((_, k) => {
        const one = cuts ? item.probability[k] : null;
        const limit = one instanceof Uint8Array ? threshold * 255 : threshold;
        return hymunet.pathOf(hymunet.contours(masks.structure(item.mask, k + 1, info.nested), width, height, one, limit));
      }),
      reference: item.reference ? outlinesOf(item.reference, width, height) : [],
    };
    app.measure(item);
  };

  const outlinesOf = (mask, width, height) =>
    app.info.classes.map((_, k) =>
      hymunet.pathOf(hymunet.contours(masks.structure(mask, k + 1, app.info.nested), width, height)),
    );

  app.measure = (item) => {
    item.rows = hymunet.measure(item.mask, item.width, item.height, app.info.classes, app.info.nested, item.spacing);
    item.dice = item.reference ? results.dice(item, app.info) : null;
  };

  /** A mask that the user has of the picture shown. */
  app.compare = async (file) => {
    const item = app.current;
    const state = at("compare-state");
    try {
      const { values, width, height } = await pictures.grey(file);
      if (width !== item.width || height !== item.height) {
        throw new Error(
          `${file.name} is ${width} x ${height} pixels and the picture ${item.width} x ${item.height}: ` +
            "choose a mask of the same size",
        );
      }
      const reference = masks.classIndices(values, app.info.label_values);
      if (!reference) {
        throw new Error(`${file.name} has values other than ${app.info.label_values.join(", ")}: save it with these`);
      }
      Object.assign(item, { reference, referenceName: file.name });
      app.compute(item);
      app.refresh(item);
      app.say(results.spoken(item));
    } catch (error) {
      state.textContent = error.message;
      state.classList.add("problem");
      app.say(error.message);
    }
  };

  app.setThreshold = (value) => {
    app.threshold = value;
    app.controls();
    if (app.pendingCut) return;
    app.pendingCut = requestAnimationFrame(() => {
      app.pendingCut = 0;
      const item = app.current;
      if (item?.state === "done" && item.cut !== app.threshold) {
        app.compute(item);
        app.refresh(item);
      }
    });
  };

  /** All that is done, at the present threshold: what files are written of. */
  app.done = () => {
    const done = app.items.filter(({ state }) => state === "done");
    for (const item of done) if (item.cut !== app.threshold) app.compute(item);
    return done;
  };

  app.choose = (item) => {
    if (!item) return;
    const same = app.current && app.current.width === item.width && app.current.height === item.height;
    app.current = item;
    app.cancelRuler();
    if (item.state === "done" && item.cut !== app.threshold) app.compute(item);
    app.list();
    app.refresh(item, same);
  };

  app.step = (by) => app.choose(app.items[app.items.indexOf(app.current) + by]);

  /** Shows what has changed of a picture. */
  app.refresh = (item, keep = true) => {
    thumbnail(item);
    if (item !== app.current) return;
    at("welcome").hidden = true;
    at("canvas").hidden = at("tools").hidden = false;
    const done = item.state === "done";
    at("panel").hidden = false;
    at("panel").classList.toggle("pending", !done); // its place stays, so that nothing jumps
    document.querySelector("main").classList.remove("empty");
    at("title").textContent = item.name;
    at("subtitle").textContent = item.width ? `${item.width} × ${item.height} pixels` : "";
    if (item.width) {
      const known = view.layers && view.layers.width === item.width && view.layers.height === item.height;
      view.show(done ? item.layers : item, keep && known);
    } else view.show(null);
    at("canvas").setAttribute("aria-label", done ? results.spoken(item) : `${item.name}: ${item.state}`);
    const message = at("stage-message");
    const words = { waiting: app.info ? "Waiting …" : "Loading the model …", working: "Segmenting …", failed: item.error, done: "" };
    message.textContent = words[item.state];
    if (done && !item.bitmap) message.textContent = "This browser cannot show the picture's format; the mask alone is shown.";
    message.hidden = !message.textContent;
    message.classList.toggle("problem", item.state === "failed");
    message.classList.toggle("working", item.state === "working");
    if (done) panel(item);
  };

  function panel(item) {
    const why = results.suspicion(item.mask);
    at("note").textContent = why || "";
    at("note").hidden = !why;
    at("results").replaceChildren(...item.rows.map((row, k) => results.block(row, k, item.dice?.[k])));
    const { spacing } = item;
    const each = spacing && (spacing[0] === spacing[1] ? Number(spacing[0].toPrecision(4)) : spacing.join(" x "));
    at("scale-state").textContent = spacing ? `One pixel is ${each} mm.` : "Not known: lengths are in pixels.";
    at("mm-per-px").value = spacing ? Number(spacing[0].toPrecision(6)) : "";
    at("scale-all").hidden = !spacing || app.items.length < 2;
    at("compare-state").classList.remove("problem");
    at("compare-state").textContent = item.reference
      ? `Dashed white: ${item.referenceName}`
      : "Choose a mask of this picture to see where the two differ.";
    at("compare-remove").hidden = !item.reference;
    const done = app.items.filter(({ state }) => state === "done").length;
    at("save-state").textContent = done > 1 ? `Measurements are of all ${done} pictures.` : "";
  }

  /** Everything that depends on settings alone. */
  app.controls = () => {
    const { info, threshold } = app;
    at("threshold").value = threshold;
    at("threshold-value").textContent = threshold.toFixed(2);
    at("threshold-reset").hidden = !info || threshold === info.threshold;
    at("opacity-value").textContent = `${at("opacity").value} %`;
    view.shown.opacity = at("opacity").value / 100;
    view.shown.outline = at("outline").checked;
    view.draw();
  };

  /** The strip of pictures. */
  app.list = () => {
    at("strip").hidden = !app.items.length;
    at("list").replaceChildren(
      ...app.items.map((item) => {
        item.button ??= element("button", {}, element("canvas", { width: 92, height: 92 }), element("span", { class: "badge" }));
        item.button.onclick = () => app.choose(item);
        item.button.setAttribute("aria-current", String(item === app.current));
        return element("li", {}, item.button);
      }),
    );
    app.current?.button.scrollIntoView?.({ block: "nearest", inline: "nearest" });
  };

  function thumbnail(item) {
    if (!item.button) return;
    const [canvas, badge] = item.button.children;
    if (item.bitmap) {
      const context = canvas.getContext("2d");
      const scale = 92 / Math.min(item.width, item.height);
      const layers = item.layers || item;
      drawing.paint(context, layers, { opacity: 0.3, outline: true, unit: 0.8 }, scale, (92 - item.width * scale) / 2, (92 - item.height * scale) / 2);
    }
    const words = { waiting: "waiting", working: "…", failed: "failed", done: "" };
    badge.textContent = words[item.state];
    item.button.className = item.state;
    item.button.setAttribute("aria-label", `${item.name}, ${item.state}`);
  }

  hymunet.app = app;
})();
