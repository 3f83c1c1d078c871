// Presets: a model and settings under a name. They can be saved as a file and read from one.

import { presets as api } from '../api';
import { EFFORTS, type Preset, type Settings } from '../types';
import { saveFile } from '../parts/clipboard';

const NUMBERS = [
  'thinking_budget', 'temperature', 'top_p', 'top_k', 'min_p', 'repetition_penalty', 'presence_penalty', 'frequency_penalty',
  'max_tokens', 'seed',
] as const;

class Presets {
  all = $state<Preset[]>([]);

  async load(): Promise<void> {
    this.all = await api.all();
  }

  onPreset(preset: Preset | null, deleted?: string): void {
    const id = preset?.id ?? deleted;
    const others = this.all.filter((one) => one.id !== id);
    this.all = (preset ? [...others, preset] : others).sort((a, b) => a.name.localeCompare(b.name));
  }

  async save(name: string, model: string | null, settings: Settings): Promise<void> {
    const same = this.all.find((preset) => preset.name === name);
    this.onPreset(await (same ? api.change(same.id, { model, settings }) : api.make({ name, model, settings })));
  }

  async remove(preset: Preset): Promise<void> {
    await api.remove(preset.id);
    this.onPreset(null, preset.id);
  }

  share(some: Preset[]): void {
    const presets = some.map(({ name, model, settings }) => ({ name, model, settings }));
    saveFile('presets.json', JSON.stringify({ tenth: 'presets', presets }, null, 2), 'application/json');
  }

  /** Read a file that `share` wrote. Gives how many it held. */
  async read(file: File): Promise<number> {
    const found = readPresets(await file.text());
    for (const preset of found) await this.save(preset.name, preset.model, preset.settings);
    return found.length;
  }
}

/** The presets in a file's text; anything unknown in it is left out. Raises SyntaxError. */
export function readPresets(text: string): Omit<Preset, 'id'>[] {
  const value = JSON.parse(text) as { tenth?: unknown; presets?: unknown };
  if (value.tenth !== 'presets' || !Array.isArray(value.presets)) throw new SyntaxError('not a file of presets');
  return value.presets.slice(0, 200).flatMap((entry: unknown) => {
    const { name, model, settings } = (entry ?? {}) as Record<string, unknown>;
    if (typeof name !== 'string' || !name.trim()) return [];
    return [{ name: name.slice(0, 100), model: typeof model === 'string' ? model : null, settings: readSettings(settings) }];
  });
}

function readSettings(value: unknown): Settings {
  const given = (value ?? {}) as Record<string, unknown>;
  const settings: Settings = {};
  for (const name of NUMBERS) if (typeof given[name] === 'number') settings[name] = given[name];
  if (typeof given.system === 'string') settings.system = given.system;
  const effort = EFFORTS.find((one) => one === given.effort);
  if (effort) settings.effort = effort;
  return settings;
}

export const presets = new Presets();
