"use strict";
{
  const find = id => document.getElementById(id);
  const gallery = document.querySelector(".gallery");
  const items = [...gallery.children];
  const scores = JSON.parse(find("image-scores").textContent);
  const dialog = find("compare");
  const stage = dialog.querySelector(".stage");
  const [order, filter, left, right, slider] = ["order", "class", "left", "right", "slider"].map(find);
  let shown = items;
  let current = 0;

  // An image's score of one model: of the chosen class where one is chosen, else its pixels right. null: no score.
  function score(item, model) {
    const of = scores[item.dataset.position];
    return filter.value === "" ? of.accuracy[model] : of.classes[filter.value][model];
  }

  const keys = {
    worst: (item, model) => score(item, model),
    best: (item, model) => -score(item, model),
    gain: item => score(item, 1) - score(item, 0),
    loss: item => score(item, 0) - score(item, 1),
    position: item => Number(item.dataset.position),
  };

  function arrange() {
    const [kind, model] = order.value.split(" ");
    shown = items.filter(item => filter.value === "" || filter.value in scores[item.dataset.position].classes);
    const unscored = item => kind !== "position" && score(item, Number(model || 0)) === null;
    const key = new Map(shown.map(item => [item, unscored(item) ? Infinity : keys[kind](item, Number(model))]));
    shown.sort((one, other) => key.get(one) === key.get(other) ? 0 : key.get(one) - key.get(other));
    const visible = new Set(shown);
    for (const item of items) item.hidden = !visible.has(item);
    gallery.append(...shown);
    const by = filter.value === "" ? "pixels right" : `IoU of ${filter.selectedOptions[0].text}`;
    find("count").textContent = `${shown.length} of ${items.length} images` + (kind === "position" ? "" : `, by ${by}`);
  }

  // Errors are transparent where all is right; the photograph in grey shows through.
  function underlay(picture, photograph) {
    picture.style.backgroundImage = picture.classList.contains("errors") ? `url("${photograph.src}")` : "";
  }

  const nearby = new IntersectionObserver(entries => {
    for (const entry of entries) {
      if (!entry.isIntersecting) continue;
      nearby.unobserve(entry.target);
      const photograph = entry.target.querySelector(".input");
      for (const picture of entry.target.querySelectorAll(".errors")) underlay(picture, photograph);
    }
  }, { rootMargin: "400px" });

  function move(percent) {
    slider.value = percent;
    stage.style.setProperty("--at", slider.value);
  }

  function compare() {
    const item = shown[current];
    const pictures = [...item.querySelectorAll("img")];
    find("compared").textContent = item.querySelector("h3").textContent;
    dialog.style.setProperty("--shape", pictures[0].getAttribute("width") / pictures[0].getAttribute("height"));
    stage.replaceChildren(...[left, right].map((side, number) => {
      const picture = pictures[side.value].cloneNode();
      picture.loading = "eager";
      if (number === 1) picture.classList.add("over");
      underlay(picture, pictures[0]);
      return picture;
    }));
    find("previous").disabled = current === 0;
    find("next").disabled = current === shown.length - 1;
    if (!dialog.open) dialog.showModal();
  }

  function open(item, picture) {
    current = shown.indexOf(item);
    const number = picture ? [...item.querySelectorAll("img")].indexOf(picture) : 0;
    if (number > 1) right.value = number; // a click on a prediction or its errors shows that one
    move(50);
    compare();
    slider.focus();
  }

  function step(by) {
    const next = current + by;
    if (next < 0 || next >= shown.length) return;
    current = next;
    compare();
  }

  const at = event => {
    const box = stage.getBoundingClientRect();
    move(Math.round(100 * (event.clientX - box.left) / box.width));
  };
  stage.addEventListener("pointerdown", event => { stage.setPointerCapture(event.pointerId); at(event); });
  stage.addEventListener("pointermove", event => { if (stage.hasPointerCapture(event.pointerId)) at(event); });
  slider.addEventListener("input", () => move(slider.value));
  for (const side of [left, right]) side.addEventListener("change", compare);
  find("previous").addEventListener("click", () => step(-1));
  find("next").addEventListener("click", () => step(1));
  find("close").addEventListener("click", () => dialog.close());
  for (const choice of [order, filter]) choice.addEventListener("change", arrange);
  gallery.addEventListener("click", event => {
    const item = event.target.closest("li");
    if (event.target.matches(".compare")) open(item);
    if (event.target.matches("img")) open(item, event.target);
  });

  document.documentElement.classList.add("scripted");
  for (const hidden of document.querySelectorAll(".controls, .compare")) hidden.hidden = false;
  for (const item of items) nearby.observe(item);
  arrange();
}
