//! Everything that needs the whole of rolecall: the real binary, real SQLite, real HTTP, the emulator as Google.

mod google;
mod support;
mod thread;
