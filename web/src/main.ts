// Starts the page: language and looks first, so that nothing flickers; then the page; then the server.

import './styles/base.css';
import './styles/prose.css';
import { mount } from 'svelte';
import App from './App.svelte';
import { watchKeyboard } from './covered';
import { speak } from './i18n/index.svelte';
import { chosenLanguage } from './state/prefs.svelte';
import { trustedUrl } from './text/code';

async function start(): Promise<void> {
  await speak(chosenLanguage());
  watchKeyboard();
  mount(App, { target: document.getElementById('app')! });
  if ('serviceWorker' in navigator) {
    await navigator.serviceWorker.register(trustedUrl('/sw.js') as string).catch(() => undefined); // refused without TLS
  }
}

void start();
