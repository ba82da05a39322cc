//! Wiring: `rolecall run` from flags to servers, engine and the folder or cluster the resources come from.

mod cluster;
mod command;
mod folder;
mod names;
mod process;
mod progress;
#[cfg(test)]
mod replay;
mod run;
mod serve;
mod tokens;

pub(crate) use command::main;
pub(crate) use names::without_names;
pub(crate) use run::run;
