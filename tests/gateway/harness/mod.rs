//! Starts the real binary on port 0 and talks to it as clients do.

pub(crate) mod client;
pub(crate) mod eventually;
pub(crate) mod frames;
pub(crate) mod gateway;
pub(crate) mod guests;
pub(crate) mod llm;
pub(crate) mod process;
pub(crate) mod redis;
pub(crate) mod wire;
pub(crate) mod witness;

pub(crate) use client::{Client, Reply};
pub(crate) use eventually::{eventually, eventually_asking};
pub(crate) use gateway::{ADMIN_TOKEN, CALLER_KEY, Gateway};
pub(crate) use witness::Witness;
