// Results in words and files: the panel's numbers, the tables, the downloads.
(() => {
  "use strict";
  const hymunet = (globalThis.hymunet ??= {});
  const { masks, pictures } = hymunet;

  const number = (value, digits = 0) =>
    value.toLocaleString("en", { minimumFractionDigits: digits, maximumFractionDigits: digits });
  const percent = (share) => `${number(100 * share, share > 0 && share < 0.1 ? 1 : 0)} %`;

  /** An element with attributes and children; text is never taken for markup. */
  function element(name, attributes = {}, ...children) {
    const made = document.createElement(name);
    for (const [key, value] of Object.entries(attributes)) {
      if (key === "style") Object.assign(made.style, value);
      else made.setAttribute(key, value);
    }
    made.append(...children);
    return made;
  }

  /** [value, unit] of a row's area and diameter, in mm where the scale is known. */
  function sizes(row) {
    return "area_mm2" in row
      ? { area: [number(row.area_mm2, row.area_mm2 < 1000 ? 1 : 0), "mm²"], diameter: [number(row.diameter_mm, 1), "mm"] }
      : { area: [number(row.area_px), "px"], diameter: [number(row.diameter_px, 1), "px"] };
  }

  /** The block of one structure in the panel. */
  function block(row, k, agreement) {
    const { area, diameter } = sizes(row);
    const value = ([text, unit]) => element("dd", {}, text, " ", element("small", {}, unit));
    const parts = row.parts === 1 ? "one part" : `${number(row.parts)} parts`;
    const outline = "perimeter_mm" in row ? `${number(row.perimeter_mm, 1)} mm` : `${number(row.perimeter_px, 1)} px`;
    const lines = [
      element(
        "h3",
        {},
        element("span", { class: "swatch", style: { background: hymunet.view.css(k) } }),
        row.class,
      ),
    ];
    if (row.area_px) {
      lines.push(
        element("dl", { class: "main" }, element("dt", {}, "Area"), value(area), element("dt", {}, "Diameter"), value(diameter)),
        element("p", { class: "quiet" }, `${percent(row.fraction)} of the picture, ${parts}, outline ${outline}. Diameter: of the circle of equal area.`),
      );
    } else lines.push(element("p", { class: "quiet" }, "not found at this threshold"));
    if (agreement !== undefined) lines.push(element("p", { class: "agreement" }, `Dice with your mask ${number(agreement, 3)}`));
    return element("div", { class: "structure" }, ...lines);
  }

  /** What is odd about a mask, as `hymunet predict` says it; null: nothing. */
  function suspicion(mask) {
    let count = 0;
    for (const value of mask) count += value > 0;
    if (!count) return "Nothing was found. Right where there is nothing, else lower the threshold.";
    if (count >= 0.95 * mask.length) return `The mask covers ${percent(count / mask.length)} of the picture: look closely.`;
    return null;
  }

  /** One sentence for screen readers. */
  function spoken(item) {
    const said = item.rows.map((row) => {
      const { area, diameter } = sizes(row);
      const unit = { "mm²": "square millimetres", mm: "millimetres", px: "pixels" };
      return row.area_px
        ? `${row.class}: area ${area[0]} ${unit[area[1]]}, diameter ${diameter[0]} ${unit[diameter[1]]}`
        : `${row.class}: not found`;
    });
    const dice = item.dice ? `; Dice with your mask ${item.dice.map((one) => number(one, 3)).join(", ")}` : "";
    return `${item.name}: ${said.join("; ")}${dice}`;
  }

  /** Rows of all pictures, as in measurements.json. */
  const rowsOf = (items) =>
    items.flatMap((item) =>
      item.rows.map((row, k) => ({
        image: item.name,
        ...row,
        ...(item.spacing ? { mm_per_px: item.spacing } : {}),
        ...(item.dice ? { dice_with_own_mask: Number(item.dice[k].toFixed(6)) } : {}),
      })),
    );

  /** measurements.json of `hymunet predict`, of what the page shows. */
  function asJson(items, failed, info, threshold) {
    const summary = {
      measurements: rowsOf(items),
      failed: Object.fromEntries(failed.map((item) => [item.name, item.error])),
      suspects: Object.fromEntries(items.map((item) => [item.name, suspicion(item.mask)]).filter(([, why]) => why)),
      model: info.name,
      identity: info.model ?? info.id ?? null,
      licence: info.licence ?? null,
      threshold,
      postprocess: info.postprocess || {},
      research_use_only: true,
    };
    return JSON.stringify(summary, null, 2) + "\n";
  }

  function asCsv(items) {
    const rows = rowsOf(items);
    const columns = [...new Set(rows.flatMap(Object.keys))];
    const cell = (value) => {
      const text = value === null || value === undefined ? "" : typeof value === "object" ? JSON.stringify(value) : String(value);
      return /[",\n\r]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
    };
    return [columns, ...rows.map((row) => columns.map((name) => row[name]))].map((row) => row.map(cell).join(",") + "\n").join("");
  }

  /** The mask in the values that `hymunet predict` writes. */
  function maskPng(item, info) {
    const values = item.mask.map((index) => info.label_values[index]);
    return pictures.greyPng(values, item.width, item.height);
  }

  /** The picture with what is drawn on it, at its own size. */
  async function overlayPng(item, shown) {
    const canvas = new OffscreenCanvas(item.width, item.height);
    const unit = Math.max(1, Math.max(item.width, item.height) / 600);
    hymunet.view.paint(canvas.getContext("2d"), item.layers, { ...shown, alone: false, unit }, 1, 0, 0);
    return canvas.convertToBlob({ type: "image/png" });
  }

  function save(blob, name) {
    const address = URL.createObjectURL(blob);
    const link = element("a", { href: address, download: name });
    document.body.append(link);
    link.click();
    link.remove();
    setTimeout(() => URL.revokeObjectURL(address), 60_000);
  }

  const dice = (item, info) => info.classes.map((_, k) => masks.dice(item.mask, item.reference, k + 1, info.nested));

  hymunet.results = { element, number, block, suspicion, spoken, asJson, asCsv, maskPng, overlayPng, save, dice };
})();
