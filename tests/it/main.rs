//! Everything that needs the whole of rolecall: the real binary, real SQLite, real HTTP, the emulator as Google.

mod absence;
mod crash;
mod folder;
mod google;
mod guard;
mod policies;
mod process;
mod record;
mod scim_bad_input;
mod scim_dialogues;
mod scim_server;
mod support;
mod thread;
