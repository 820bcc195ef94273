//! The Lua scripts, each hashed once.

use redis::Script;

pub(super) struct Scripts {
    pub(super) hold: Script,
    pub(super) settle: Script,
    pub(super) expire: Script,
    pub(super) renew: Script,
    pub(super) credit: Script,
    pub(super) kv_set: Script,
    pub(super) kv_add: Script,
    pub(super) kv_swap: Script,
    pub(super) kv_keys: Script,
}

impl Scripts {
    pub(super) fn new() -> Self {
        Self {
            hold: Script::new(include_str!("../lua/hold.lua")),
            settle: Script::new(include_str!("../lua/settle.lua")),
            expire: Script::new(include_str!("../lua/expire.lua")),
            renew: Script::new(include_str!("../lua/renew.lua")),
            credit: Script::new(include_str!("../lua/credit.lua")),
            kv_set: Script::new(include_str!("../lua/kv_set.lua")),
            kv_add: Script::new(include_str!("../lua/kv_add.lua")),
            kv_swap: Script::new(include_str!("../lua/kv_swap.lua")),
            kv_keys: Script::new(include_str!("../lua/kv_keys.lua")),
        }
    }
}
