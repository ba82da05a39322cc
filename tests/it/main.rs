//! Everything that needs the whole of rolecall.

mod google;
