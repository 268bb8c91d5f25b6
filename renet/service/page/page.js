"use strict";
{
  const find = id => document.getElementById(id);
  const [stage, photograph, labelCanvas, slider, opacity, status, error, pixel, form] =
    ["stage", "photograph", "labels", "slider", "opacity", "status", "error", "pixel", "settings"].map(find);
  const SCALES = [0.5, 0.75, 1, 1.25, 1.5];
  const PARAMETERS = [ // name, text, least, most, step
    ["max_iter", "Iterations", 0, 20, 1],
    ["pos_w", "Positional weight", 0, 20, 0.5],
    ["pos_xy_std", "Positional deviation, pixels", 0.5, 30, 0.5],
    ["bi_w", "Bilateral weight", 0, 30, 0.5],
    ["bi_xy_std", "Bilateral deviation, pixels", 1, 200, 1],
    ["bi_rgb_std", "Bilateral deviation, colour", 0.5, 50, 0.5],
  ];
  const MILLISECONDS_OF_SILENCE = 250; // after the last change of a setting
  const MOST_SHOWN = 3; // classes of a pixel

  let model = null;
  let file = null; // the image that was chosen
  let result = null; // what the network said of it
  let place = null; // the pixel that is told: x, y
  let request = null; // AbortController of the one under way
  let timer = 0;

  function make(name, options = {}, ...children) {
    const element = Object.assign(document.createElement(name), options);
    element.append(...children);
    return element;
  }

  function swatch(colour) {
    const element = make("span", { className: "swatch" });
    element.style.background = colour;
    element.setAttribute("aria-hidden", "true");
    return element;
  }

  // A row of a table: a class, a bar and a percentage.
  function row(entry, share) {
    const fill = make("span", { className: "fill" });
    fill.style.width = `${100 * share}%`;
    fill.style.background = entry.colour;
    const bar = make("td", { className: "bar" }, make("span", { className: "track" }, fill));
    bar.setAttribute("aria-hidden", "true");
    const name = make("th", { scope: "row" }, swatch(entry.colour), entry.name);
    const percent = make("td", { className: "number" }, `${(100 * share).toFixed(1)} %`);
    return make("tr", { className: share > 0 ? "" : "absent" }, name, bar, percent);
  }

  function complain(text) {
    error.textContent = text;
    error.hidden = !text;
  }

  // The files of a ZIP archive that are stored as they are, by name.
  function stored(buffer) {
    const view = new DataView(buffer);
    const files = {};
    let at = 0;
    while (view.getUint32(at, true) === 0x04034b50) {
      const size = view.getUint32(at + 18, true);
      const start = at + 30 + view.getUint16(at + 26, true) + view.getUint16(at + 28, true);
      const name = new TextDecoder().decode(new Uint8Array(buffer, at + 30, view.getUint16(at + 26, true)));
      files[name] = buffer.slice(start, start + size);
      at = start + size;
    }
    return files;
  }

  // The shape and the values of an .npy file of version 1.
  function array(buffer, Kind) {
    const length = new DataView(buffer).getUint16(8, true);
    const header = new TextDecoder().decode(new Uint8Array(buffer, 10, length));
    const shape = header.match(/\(([^)]*)\)/)[1].split(",").map(Number);
    return { shape, values: new Kind(buffer, 10 + length) };
  }

  // The number that 16 bits hold.
  function half(bits) {
    const exponent = (bits >> 10) & 31;
    const fraction = bits & 1023;
    return exponent === 0 ? fraction * 2 ** -24 : (1 + fraction / 1024) * 2 ** (exponent - 15);
  }

  const probability = (label, x, y) => half(result.probabilities[(label * result.height + y) * result.width + x]);

  function resize(width, height) {
    for (const canvas of [photograph, labelCanvas]) Object.assign(canvas, { width, height });
    stage.style.setProperty("--shape", width / height);
  }

  function drawLabels() {
    const pixels = new ImageData(result.width, result.height);
    const colours = new Uint8ClampedArray(4 * 256).fill(255); // the ignored label is white
    for (const { index, colour } of model.classes) {
      colours.set([1, 3, 5].map(at => parseInt(colour.slice(at, at + 2), 16)), 4 * index);
    }
    const whole = new Uint32Array(colours.buffer); // a pixel at once
    new Uint32Array(pixels.data.buffer).set(Uint32Array.from(result.labels, label => whole[label]));
    labelCanvas.getContext("2d").putImageData(pixels, 0, 0);
  }

  function tellClasses() {
    const counts = new Array(model.classes.length).fill(0);
    if (result) result.labels.forEach(label => counts[label]++);
    const order = [...model.classes].sort((one, other) => counts[other.index] - counts[one.index]);
    const total = result ? result.labels.length : 1;
    find("classes").replaceChildren(...order.map(entry => row(entry, counts[entry.index] / total)));
    const seen = order.filter(entry => counts[entry.index]);
    const text = seen.slice(0, 5).map(entry => `${entry.name} ${Math.round(100 * counts[entry.index] / total)} %`);
    stage.setAttribute("aria-label", result ? `Labels of the image: ${text.join(", ")}` : "No image yet");
  }

  function tellPixel(x, y) {
    if (!result) return;
    place = [Math.min(Math.max(x, 0), result.width - 1), Math.min(Math.max(y, 0), result.height - 1)];
    [x, y] = place;
    const cross = find("cross");
    cross.hidden = false;
    cross.style.left = `${100 * (x + 0.5) / result.width}%`;
    cross.style.top = `${100 * (y + 0.5) / result.height}%`;
    const entry = model.classes[result.labels[y * result.width + x]];
    const likely = model.classes.map(each => [each, probability(each.index, x, y)]).sort((a, b) => b[1] - a[1]);
    const where = make("span", { className: "quiet" }, `column ${x}, row ${y}`);
    const rows = likely.slice(0, MOST_SHOWN).map(([each, share]) => row(each, share));
    pixel.replaceChildren(
      make("h3", {}, swatch(entry.colour), entry.name, where),
      make("table", {}, make("caption", { className: "spoken" }, "Probabilities"), make("tbody", {}, ...rows)),
    );
  }

  function offer(id, blob, suffix) {
    const link = find(id);
    if (link.href) URL.revokeObjectURL(link.href);
    link.removeAttribute("href");
    link.setAttribute("aria-disabled", String(!blob));
    if (blob) {
      link.href = URL.createObjectURL(blob);
      link.download = `${(file.name || "image").replace(/\.[^.]*$/, "")}${suffix}`;
    }
  }

  function query() {
    const asked = new URLSearchParams({ flip: find("flip").checked, crf: find("crf").checked });
    for (const box of document.querySelectorAll("#scales input:checked")) asked.append("scales", box.value);
    if (find("crf").checked) {
      for (const [name] of PARAMETERS) asked.set(name, find(name).value);
      asked.set("normalization", model.defaults.normalization);
    }
    return asked;
  }

  async function predict() {
    clearTimeout(timer);
    if (!file) return;
    if (request) request.abort();
    const mine = request = new AbortController();
    stage.classList.add("busy");
    status.textContent = "Predicting …";
    complain("");
    try {
      const answer = await fetch(`predict?${query()}`, {
        method: "POST",
        body: file,
        headers: { "Content-Type": "application/octet-stream", "Accept": "application/x-npz" },
        signal: mine.signal,
      });
      if (!answer.ok) {
        const problem = await answer.json().catch(() => ({ detail: answer.statusText }));
        const later = answer.headers.get("Retry-After");
        if (later) timer = setTimeout(predict, 1000 * later);
        throw new Error(problem.detail + (later ? ` (asked again in ${later} s)` : ""));
      }
      const archive = await answer.arrayBuffer();
      const files = stored(archive);
      const labels = array(files["labels.npy"], Uint8Array);
      const [height, width] = labels.shape;
      const probabilities = array(files["probabilities.npy"], Uint16Array).values;
      if (mine.signal.aborted) return;
      result = { width, height, labels: labels.values, probabilities };
      if (photograph.width !== width || photograph.height !== height) resize(width, height);
      drawLabels();
      tellClasses();
      offer("png", new Blob([files["labels.png"]], { type: "image/png" }), "_labels.png");
      offer("npz", new Blob([archive], { type: "application/x-npz" }), ".npz");
      stage.classList.add("full");
      const seconds = Number((answer.headers.get("Server-Timing").match(/network;dur=([\d.]+)/) || [])[1]) / 1000;
      status.textContent = `${width} × ${height} pixels, ${seconds.toFixed(2)} s in the network`;
      if (place) tellPixel(...place);
    } catch (fault) {
      if (fault.name === "AbortError") return;
      status.textContent = "";
      complain(fault instanceof TypeError ? "The service does not answer. Is it still running?" : fault.message);
    } finally {
      if (request === mine) {
        request = null;
        stage.classList.remove("busy");
      }
    }
  }

  // Forget the last image's result, and show the new image itself while its labels are predicted.
  async function choose(chosen) {
    file = chosen;
    result = null;
    place = null;
    find("cross").hidden = true;
    for (const id of ["png", "npz"]) offer(id, null);
    tellClasses();
    labelCanvas.getContext("2d").clearRect(0, 0, labelCanvas.width, labelCanvas.height);
    const predicted = predict();
    try {
      const bitmap = await createImageBitmap(chosen);
      if (file !== chosen) return;
      if (photograph.width !== bitmap.width || photograph.height !== bitmap.height) {
        resize(bitmap.width, bitmap.height);
        if (result) drawLabels();
      }
      photograph.getContext("2d").drawImage(bitmap, 0, 0);
      stage.classList.add("full");
    } catch {
      await predicted; // an image that this browser cannot show may be one that the service reads
      if (result && file === chosen) status.textContent += "; this browser cannot show the image itself";
      photograph.getContext("2d").clearRect(0, 0, photograph.width, photograph.height);
    }
  }

  function changed() {
    find("crf-parameters").hidden = !find("crf").checked;
    for (const [name] of PARAMETERS) find(`${name}-value`).textContent = find(name).value;
    clearTimeout(timer);
    timer = setTimeout(predict, MILLISECONDS_OF_SILENCE);
  }

  function setDefaults() {
    const { defaults } = model;
    find("flip").checked = defaults.flip;
    find("crf").checked = defaults.crf;
    for (const box of document.querySelectorAll("#scales input")) {
      box.checked = defaults.scales.includes(Number(box.value));
    }
    for (const [name] of PARAMETERS) find(name).value = defaults[name];
    changed();
  }

  function buildSettings() {
    const scales = [...new Set([...SCALES, ...model.defaults.scales])].sort((one, other) => one - other);
    find("scales").append(...scales.map(scale => make("label", {}, make("input", { type: "checkbox", value: scale }), ` ${scale}`)));
    find("parameters").append(...PARAMETERS.map(([name, text, least, most, step]) => {
      const own = model.defaults[name];
      // a default off the slider's steps stays what it is
      const options = { type: "range", id: name, min: Math.min(least, own), max: Math.max(most, own), step };
      if ((own - options.min) % step) options.step = "any";
      return make("label", { htmlFor: name }, text, make("output", { id: `${name}-value` }), make("input", options));
    }));
  }

  function buildExamples() {
    find("examples").append(...model.examples.map((address, number) => {
      const picture = make("img", { src: address, alt: `Example ${number + 1}`, width: 86, height: 65 });
      const button = make("button", { type: "button", title: "A drawn scene" }, picture);
      button.addEventListener("click", async () => {
        try {
          const blob = await (await fetch(address)).blob();
          choose(new File([blob], `example${number + 1}.png`, { type: blob.type }));
        } catch {
          complain("The service does not answer. Is it still running?");
        }
      });
      return button;
    }));
  }

  const move = percent => {
    slider.value = percent;
    stage.style.setProperty("--at", slider.value);
  };

  function follow(event) {
    const box = stage.getBoundingClientRect();
    const [x, y] = [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height];
    if (stage.hasPointerCapture(event.pointerId)) move(Math.round(100 * x));
    if (result) tellPixel(Math.floor(x * result.width), Math.floor(y * result.height));
  }

  function step(event) {
    const by = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
    if (!by || !result) return;
    event.preventDefault();
    const far = event.shiftKey ? 10 : 1;
    const [x, y] = place || [Math.floor(result.width / 2), Math.floor(result.height / 2)];
    tellPixel(x + far * by[0], y + far * by[1]);
  }

  async function begin() {
    try {
      model = await (await fetch("model")).json();
    } catch {
      complain("The service does not answer. Is it still running?");
      return;
    }
    document.title = `${model.name}: ReNet-Caffe`;
    find("title").textContent = `Try ${model.name}`;
    find("subtitle").textContent =
      `${model.dataset}, ${model.classes.length} classes · on the ${model.device} · ReNet-Caffe ${model.version}`;
    find("kept").textContent = model.keeps ? " and kept there" : " and not kept";
    buildSettings();
    buildExamples();
    setDefaults();
    tellClasses();
    find("file").addEventListener("change", event => {
      if (event.target.files[0]) choose(event.target.files[0]);
      event.target.value = ""; // so that the same file, edited, can be chosen again
    });
    form.addEventListener("input", event => {
      // without any scale there is nothing to average
      if (event.target.closest("#scales") && !document.querySelector("#scales input:checked")) event.target.checked = true;
      changed();
    });
    form.addEventListener("reset", event => { event.preventDefault(); setDefaults(); });
    form.addEventListener("submit", event => event.preventDefault());
    slider.addEventListener("input", () => move(slider.value));
    opacity.addEventListener("input", () => { labelCanvas.style.opacity = opacity.value / 100; });
    stage.addEventListener("pointerdown", event => { stage.setPointerCapture(event.pointerId); follow(event); });
    stage.addEventListener("pointermove", follow);
    stage.addEventListener("keydown", step);
    document.addEventListener("paste", event => event.clipboardData.files[0] && choose(event.clipboardData.files[0]));
    for (const kind of ["dragover", "dragleave", "drop"]) {
      document.addEventListener(kind, event => {
        event.preventDefault();
        document.body.classList.toggle("over", kind === "dragover");
        if (kind === "drop" && event.dataTransfer.files[0]) choose(event.dataTransfer.files[0]);
      });
    }
    document.body.dataset.ready = "";
  }

  begin();
}
