//! Hooks through a real component.

mod endpoint;
mod filter;
mod llm;
mod loading;
mod probe;
mod standard;
mod support;
