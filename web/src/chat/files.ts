// Files that were chosen, dropped or pasted. Of a folder only what is text by its name, and not what tools keep for themselves.

import { t } from '../i18n/index.svelte';
import { MOST_FILES } from '../state/draft.svelte';
import { ui } from '../state/ui.svelte';

const TEXT =
  /\.(txt|md|markdown|rst|csv|tsv|json|jsonl|ya?ml|toml|ini|cfg|conf|xml|html?|css|scss|js|mjs|cjs|jsx|ts|tsx|svelte|vue|py|pyi|rb|rs|go|java|kt|c|h|cc|cpp|hpp|cs|swift|php|pl|lua|r|jl|sh|bash|zsh|ps1|sql|tex|bib|org|log|diff|patch|pdf|docx)$|(^|\/)(readme|license|makefile|dockerfile)$/i;
const HIDDEN = /(^|\/)(\.[^/]+|node_modules|__pycache__|target|dist|build|venv)\//;

export function isFolderFile(path: string): boolean {
  return TEXT.test(path) && !HIDDEN.test(`${path.slice(0, path.lastIndexOf('/') + 1)}`);
}

const byName = new Intl.Collator('en', { numeric: true }).compare;
const pathOf = (file: File) => file.webkitRelativePath || file.name;

/** The useful files of a folder, in the order of their names; says how many were left out. */
export function fromFolder(files: File[]): File[] {
  const useful = files.filter((file) => isFolderFile(pathOf(file))).sort((a, b) => byName(pathOf(a), pathOf(b)));
  if (!useful.length) ui.say(t('files.none'));
  const taken = useful.slice(0, MOST_FILES);
  const n = files.length - taken.length;
  if (n > 0 && taken.length) ui.say(t('files.skipped', { n }));
  return taken;
}

export async function droppedFiles(data: DataTransfer): Promise<File[]> {
  const entries = [...data.items].flatMap((item) => item.webkitGetAsEntry() ?? []);
  if (!entries.some((entry) => entry.isDirectory)) return [...data.files];
  const found: File[] = [];
  for (const entry of entries) await walk(entry, '', found);
  return fromFolder(found);
}

async function walk(entry: FileSystemEntry, folder: string, into: File[]): Promise<void> {
  if (into.length >= 10 * MOST_FILES) return;
  const path = folder + entry.name;
  if (entry.isFile) {
    const file = await new Promise<File>((resolve, reject) => (entry as FileSystemFileEntry).file(resolve, reject));
    Object.defineProperty(file, 'webkitRelativePath', { value: path });
    into.push(file);
  } else if (!HIDDEN.test(`${path}/`)) {
    const reader = (entry as FileSystemDirectoryEntry).createReader();
    const read = () => new Promise<FileSystemEntry[]>((resolve, reject) => reader.readEntries(resolve, reject));
    for (let some = await read(); some.length; some = await read()) {
      for (const inside of some) await walk(inside, `${path}/`, into);
    }
  }
}
