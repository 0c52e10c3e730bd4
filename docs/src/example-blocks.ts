/** Returns the code of every `ts` block of a Markdown document: those are executed. */
export function exampleBlocks(markdown: string): string[] {
  return [...markdown.matchAll(/^```ts\n(.*?)^```/gms)].map((match) => match[1] ?? "");
}

/** Returns what an example promises to print: the text behind each `// =>`. */
export function promisedLines(code: string): string[] {
  return [...code.matchAll(/\/\/ => (.*)$/gm)].map((match) => match[1] ?? "");
}
