// The map of all directions: click one to see its nearest, its stories, its top tokens. The same in a notebook, as a
// widget, and in a page of its own. Every text reaches the page through textContent.

const WIDTH = 1000, HEIGHT = 720, MARGIN = 45;

function drawMap(root, data, choose) {
  const byName = new Map(data.emotions.map((emotion) => [emotion.name, emotion]));
  const view = { x: 0, y: 0, scale: 1 };
  const place = (emotion) => [
    (MARGIN + emotion.x * (WIDTH - 2 * MARGIN) - view.x) * view.scale,
    (MARGIN + emotion.y * (HEIGHT - 2 * MARGIN) - view.y) * view.scale,
  ];
  const canvas = svg("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", "aria-label": data.title, class: "canvas" });
  const lines = svg("g", { class: "near" });
  canvas.append(lines);
  const nodes = new Map();
  for (const emotion of data.emotions) {
    const node = svg("g", { class: "emotion" });
    node.append(svg("circle", { r: 6, fill: emotion.colour }), svg("text", { y: -9 }, emotion.name));
    node.append(svg("title", {}, `${emotion.name}: ${emotion.sense}`));
    node.addEventListener("click", () => choose(emotion.name));
    nodes.set(emotion.name, node);
    canvas.append(node);
  }

  function settle() {
    for (const [name, node] of nodes) node.setAttribute("transform", `translate(${place(byName.get(name))})`);
    lines.replaceChildren();
    const from = byName.get(chosen);
    for (const [name] of from ? from.near : []) {
      const [[x1, y1], [x2, y2]] = [place(from), place(byName.get(name))];
      lines.append(svg("line", { x1, y1, x2, y2 }));
    }
  }

  // about a point, by default the chosen emotion, which stays where it is
  function zoom(factor, [x, y] = place(byName.get(chosen))) {
    const scale = Math.max(1, Math.min(12, view.scale * factor));
    view.x += x / view.scale - x / scale;
    view.y += y / view.scale - y / scale;
    view.scale = scale;
    if (scale === 1) view.x = view.y = 0;
    settle();
  }

  // in units of the drawing, whatever its size on the screen
  const at = (event) => {
    const box = canvas.getBoundingClientRect(), size = WIDTH / box.width;
    return [(event.clientX - box.left) * size, (event.clientY - box.top) * size];
  };
  let drag = null;
  canvas.addEventListener("pointerdown", (event) => { drag = at(event); });
  canvas.addEventListener("pointermove", (event) => {
    if (!drag || !event.buttons) return;
    const here = at(event);
    view.x += (drag[0] - here[0]) / view.scale;
    view.y += (drag[1] - here[1]) / view.scale;
    drag = here;
    settle();
  });
  canvas.addEventListener("dblclick", (event) => { event.preventDefault(); zoom(2, at(event)); });

  const list = make("datalist", { id: `emotions-${Math.random().toString(36).slice(2)}` });
  for (const name of byName.keys()) list.append(make("option", { value: name }));
  const search = make("input", { type: "text", placeholder: "find an emotion", "aria-label": "Find an emotion",
    autocomplete: "off", list: list.id });
  search.setAttribute("list", list.id);
  function find() {
    const wanted = search.value.trim().toLowerCase();
    search.value = "";
    if (!wanted) return;
    const hit = [...byName.keys()].find((name) => name.toLowerCase() === wanted)
      ?? [...byName.keys()].find((name) => name.toLowerCase().includes(wanted));
    if (hit) choose(hit);
    else told.replaceChildren(make("p", { role: "status" }, `“${wanted}” is not on this map.`));
  }
  search.addEventListener("change", find);
  search.addEventListener("keydown", (event) => {
    if (event.key === "Enter") { event.preventDefault(); event.stopPropagation(); find(); }
  });
  const button = (label, title, onclick) => make("button", { type: "button", title, "aria-label": title, onclick }, label);
  const told = make("div", { class: "told", "aria-live": "polite" });
  let chosen = "";

  function show(name) {
    const emotion = byName.get(name);
    if (!emotion) return;
    chosen = name;
    const near = new Set(emotion.near.map(([other]) => other));
    for (const [other, node] of nodes) {
      node.setAttribute("class", `emotion ${other === name ? "chosen" : near.has(other) ? "kin" : ""}`);
      if (other === name) canvas.append(node); // on top of the others
    }
    settle();
    const kin = make("ol", {});
    for (const [other, cosine] of emotion.near) {
      kin.append(make("li", {}, make("button", { type: "button", onclick: () => choose(other) }, other), ` ${signed(cosine)}`));
    }
    told.replaceChildren(make("h4", {}, name), make("p", {}, emotion.sense), make("p", { class: "soft" }, emotion.placed),
      make("h5", {}, "Nearest directions (cosine)"), kin);
    if (emotion.words.length) {
      told.append(make("h5", {}, data.lens), make("p", { class: "words" }, emotion.words.join("  ")));
    }
    if (emotion.stories.length) told.append(make("h5", {}, "Stories about it, of those that come with emolab"));
    for (const { part, text } of emotion.stories) {
      told.append(make("details", {}, make("summary", {}, part || "story"), make("p", {}, text)));
    }
  }

  root.append(make("div", { class: "emolab-lab emolab-map", role: "group", "aria-label": data.title },
    make("h4", {}, data.title),
    make("div", { class: "row" }, search, list, button("+", "closer", () => zoom(1.5)), button("−", "farther", () => zoom(1 / 1.5)),
      button("all", "the whole map", () => zoom(0)), make("span", { class: "caption" }, data.caption)),
    make("div", { class: "sides" }, canvas, told)));
  settle();
  return show;
}

function render({ model, el }) {
  const choose = (name) => { model.set("chosen", name); model.save_changes(); };
  const show = drawMap(el, model.get("data"), choose);
  const react = () => show(model.get("chosen"));
  model.on("change:chosen", react);
  react();
  return () => model.off("change:chosen", react);
}

export default { render };
