//! The standard plugins, compiled into the binary.

mod generated {
    include!(concat!(env!("OUT_DIR"), "/plugins.rs"));
}

/// The component of a standard plugin.
pub fn embedded(name: &str) -> Option<&'static [u8]> {
    generated::EMBEDDED.iter().find(|(known, _)| *known == name).map(|(_, component)| *component)
}
