// A model card in Markdown as elements. Its text becomes text only: nothing in it is read as HTML.

const INLINE = /`([^`]+)`|\*\*([^*]+)\*\*|\*([^*\s][^*]*)\*|\[([^\]]+)\]\((https?:\/\/[^)\s]+)\)/g;

export function element(name, text = "", attributes = {}) {
  const made = document.createElement(name);
  made.textContent = text;
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  return made;
}

/** Returns the elements of a card: headings, paragraphs, lists, tables, code. */
export function render(markdown) {
  const lines = markdown.replace(/^---\n[\s\S]*?\n---\n/, "").split("\n");
  const made = [];
  let at = 0;
  const take = (matches) => {
    const from = at;
    while (at < lines.length && matches(lines[at])) at++;
    return lines.slice(from, at);
  };
  while (at < lines.length) {
    const line = lines[at];
    const heading = /^(#{1,6})\s+(.*)/.exec(line);
    if (line.startsWith("```")) {
      at++;
      made.push(element("pre", take((own) => !own.startsWith("```")).join("\n"), { tabindex: "0" }));
      at++;
    } else if (heading) {
      made.push(inline(element(`h${Math.min(5, heading[1].length + 2)}`), heading[2]));
      at++;
    } else if (line.startsWith("|")) {
      made.push(table(take((own) => own.startsWith("|"))));
    } else if (/^[-*] /.test(line)) {
      const list = element("ul");
      list.append(...take((own) => /^([-*] |\s+\S)/.test(own)).join("\n").split(/\n?^[-*] /m).filter(Boolean)
        .map((own) => inline(element("li"), own)));
      made.push(list);
    } else if (!line.trim()) {
      at++;
    } else {
      at++;
      made.push(inline(element("p"), [line, ...take((own) => own.trim() && !/^(#|\||```|[-*] )/.test(own))].join(" ")));
    }
  }
  return made;
}

function inline(parent, text) {
  let from = 0;
  for (const found of text.matchAll(INLINE)) {
    parent.append(text.slice(from, found.index));
    const [whole, code, bold, italic, words, address] = found;
    if (code) parent.append(element("code", code));
    else if (bold) parent.append(element("strong", bold));
    else if (italic) parent.append(element("em", italic));
    else parent.append(element("a", words, { href: address, rel: "noopener noreferrer" }));
    from = found.index + whole.length;
  }
  parent.append(text.slice(from));
  return parent;
}

function table(lines) {
  const cells = (line) => line.replace(/^\||\|\s*$/g, "").split("|").map((cell) => cell.trim());
  const rows = lines.filter((line) => !/^\|[\s:|-]+\|?\s*$/.test(line)).map(cells);
  return tableOf(rows[0] ?? [], rows.slice(1), "Table of the model card");
}

/** Returns a table that can be scrolled by itself. */
export function tableOf(head, rows, label) {
  const own = element("table");
  own.append(element("caption", label, { class: "hidden" }));
  const top = element("tr");
  const isText = head.map((_, place) => rows.some((cells) => cells[place] && !/^[-+\d.]/.test(cells[place])));
  const kind = (place) => (isText[place] ? { class: "text" } : {});
  top.append(...head.map((cell, place) => element("th", cell, { scope: "col", ...kind(place) })));
  const thead = element("thead"), tbody = element("tbody");
  thead.append(top);
  tbody.append(...rows.map((cells) => {
    const row = element("tr");
    row.append(...cells.map((cell, place) => element("td", cell, kind(place))));
    return row;
  }));
  own.append(thead, tbody);
  const scroll = element("div", "", { class: "scroll", role: "region", tabindex: "0", "aria-label": label });
  scroll.append(own);
  return scroll;
}
