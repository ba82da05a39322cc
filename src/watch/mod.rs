//! Where the resources come from: a folder of manifests, turned into changes for the engine.

pub mod folder;
