//! Readers of `state`.

use std::time::Duration;

use crate::config::{
    reader::Item,
    scalar,
    state::{Backend, State},
};

use super::access;

/// The directory `data` beside the configuration file, embedded store.
pub(super) fn default_state(root: &Item<'_>) -> State {
    State { data_dir: root.path_of("data"), backend: Backend::Embedded }
}

pub(super) fn state(item: &Item<'_>) -> Option<State> {
    item.fields(|f| {
        let data_dir = match f.take("data_dir") {
            Some(item) => item.string().map(|written| item.path_of(&written)),
            None => Some(item.path_of("data")),
        };
        let backend = match f.take("redis") {
            Some(item) => redis(&item),
            None => Some(Backend::Embedded),
        };
        Some(State { data_dir: data_dir?, backend: backend? })
    })
}

fn redis(item: &Item<'_>) -> Option<Backend> {
    item.fields(|f| {
        let url = f.require("url").and_then(|item| access::redis_url(&item));
        let timeout = f.or("timeout", Duration::from_millis(50), scalar::duration);
        Some(Backend::Redis { url: url?, timeout })
    })
}
