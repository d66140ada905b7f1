// A second reading of rules, without regular expressions, to test the first against.

/** Whether a glob with *, ? and [sets] matches a whole name. */
export function globMatches(pattern, name) {
  const p = Array.from(pattern);
  const n = Array.from(name);
  const memo = new Map();
  const walk = (i, j) => {
    const key = i * 10007 + j;
    if (!memo.has(key)) memo.set(key, step(i, j));
    return memo.get(key);
  };
  const step = (i, j) => {
    if (i === p.length) return j === n.length;
    if (p[i] === "*") return walk(i + 1, j) || (j < n.length && walk(i, j + 1));
    if (j === n.length) return false;
    if (p[i] === "?") return walk(i + 1, j + 1);
    if (p[i] === "[") {
      const close = p.indexOf("]", p[i + 1] === "!" ? i + 3 : i + 2);
      if (close > 0) {
        const negated = p[i + 1] === "!";
        const members = p.slice(negated ? i + 2 : i + 1, close);
        let inside = false;
        for (let k = 0; k < members.length; k += 1) {
          if (members[k + 1] === "-" && k + 2 < members.length) {
            inside ||= members[k] <= n[j] && n[j] <= members[k + 2];
            k += 2;
          } else inside ||= members[k] === n[j];
        }
        return inside !== negated && walk(close + 1, j + 1);
      }
    }
    return p[i] === n[j] && walk(i + 1, j + 1);
  };
  return walk(0, 0);
}

/** The layers that a line `pattern @ blocks = format` decides. */
export function layersOfLine(line, layers) {
  const at = line.lastIndexOf("=");
  const format = line.slice(at + 1).trim();
  const [pattern, blocks = ""] = line.slice(0, at).split(/@(.*)/s).map((part) => part.trim());
  const plain = ["keep", "bf16", "fp16", "fp32"].includes(format);
  return layers.flatMap((layer, i) => {
    if (!plain && !layer.linear) return [];
    if (blocks) {
      if (layer.block < 0) return [];
      const [word, number] = blocks.split(":");
      const [from, to = from] = blocks.split("-").map(Number);
      const inside = word === "first" ? layer.block < Number(number) : word === "last" ? layer.block >= layer.count - Number(number) : layer.block >= from && layer.block <= to;
      if (!inside) return [];
    }
    return globMatches(pattern, layer.name) ? [i] : [];
  });
}
