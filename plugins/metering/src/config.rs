//! The plugin's `config` section.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::money::{Percent, Usd};

#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Config {
    pub(crate) tiers: BTreeMap<String, Tier>,
    /// Name in `tiers` of the tier for callers whose own is not listed. Absent:
    /// such callers get the default settings of a tier.
    pub(crate) default_tier: Option<String>,
    pub(crate) unknown_price: UnknownPrice,
    /// Assumed when neither the caller nor the candidate says.
    pub(crate) default_max_output_tokens: u64,
    /// The output limit is not lowered below this to fit a small balance.
    pub(crate) min_output_tokens: u64,
    /// What a call with the caller's own key costs, as a share of its price.
    pub(crate) own_key_fee_percent: Percent,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Tier {
    pub(crate) markup_percent: Percent,
    pub(crate) monthly_cap_usd: Option<Usd>,
    /// Whether the balance must cover the hold.
    pub(crate) prepaid: bool,
}

/// What happens to a request whose candidates have no known price.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum UnknownPrice {
    Deny,
    Unmetered,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            tiers: BTreeMap::new(),
            default_tier: None,
            unknown_price: UnknownPrice::Deny,
            default_max_output_tokens: 4096,
            min_output_tokens: 256,
            own_key_fee_percent: Percent::default(),
        }
    }
}

impl Default for Tier {
    fn default() -> Self {
        Self { markup_percent: Percent::default(), monthly_cap_usd: None, prepaid: true }
    }
}

impl Config {
    pub(crate) fn parse(json: &str) -> Result<Self, String> {
        let config: Self = tollgate_sdk::parse_config(json)?;
        if let Some(name) = config.default_tier.as_ref().filter(|name| !config.tiers.contains_key(*name)) {
            return Err(format!("default_tier `{name}` is not one of tiers"));
        }
        if config.default_max_output_tokens == 0 {
            return Err("default_max_output_tokens must be at least 1".to_owned());
        }
        Ok(config)
    }

    pub(crate) fn tier(&self, name: &str) -> Tier {
        let listed = self.tiers.get(name).or_else(|| self.tiers.get(self.default_tier.as_ref()?));
        listed.cloned().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_absent_config_has_defaults() {
        assert_eq!(Config::parse("null"), Ok(Config::default()));
        assert!(Config::default().tier("any").prepaid);
    }

    #[test]
    fn an_unlisted_tier_is_the_default_one() {
        let json = r#"{"tiers":{"free":{"monthly_cap_usd":"5"},"pro":{"markup_percent":10,"prepaid":false}},
                       "default_tier":"free"}"#;
        let config = Config::parse(json).unwrap();
        assert_eq!(config.tier("gold").monthly_cap_usd, Some(Usd(5_000_000_000)));
        assert_eq!(config.tier("pro").markup_percent, Percent(100_000));
        assert!(!config.tier("pro").prepaid);
    }

    #[test]
    fn mistakes_are_refused() {
        for bad in [
            r#"{"tier":{}}"#,
            r#"{"default_tier":"free"}"#,
            r#"{"tiers":{"free":{"monthly_cap_usd":"-5"}}}"#,
            r#"{"unknown_price":"free"}"#,
            r#"{"default_max_output_tokens":0}"#,
            "[]",
        ] {
            assert!(Config::parse(bad).is_err(), "{bad}");
        }
    }
}
