//! Everything that needs more than one room: real HTTP, real SQLite.

mod scim_bad_input;
mod scim_dialogues;
mod scim_server;
