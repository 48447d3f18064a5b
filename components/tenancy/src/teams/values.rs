//! The values of a team's fields.

use rust_decimal::Decimal;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};
use serde_json::value::RawValue;
use serde_with::{rust::double_option, skip_serializing_none};
use shared::values::{Limit, Usd, Whole};
use utoipa::ToSchema;

/// A period as LiteLLM reads it: a number and `s`, `m`, `h`, `d` or `w`, such as `24h` or `30d`, or `1mo`. LiteLLM
/// accepts several months only if they end within the calendar year.
#[derive(Deserialize, Serialize, ToSchema)]
#[serde(try_from = "String")]
#[schema(value_type = String, pattern = "^([1-9][0-9]{0,3}[smhdw]|1mo)$", example = "30d")]
pub struct BudgetDuration(String);

impl TryFrom<String> for BudgetDuration {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let unit = text.trim_start_matches(|c: char| c.is_ascii_digit());
        let number = text.strip_suffix(unit).and_then(|number| number.parse::<u16>().ok());
        match (number, unit) {
            (Some(1..), "s" | "m" | "h" | "d" | "w") | (Some(1), "mo") => Ok(Self(text)),
            _ => Err("expected a number from 1 to 65535 and s, m, h, d or w, like 30d, or 1mo"),
        }
    }
}

/// The highest amount of US dollars that is accepted.
const MAX_USD: Decimal = Decimal::from_parts(1_000_000_000, 0, 0, false, 0);

/// A JSON number from `min` to `max` with at most ten decimals.
fn decimal<'de, D: Deserializer<'de>>(
    deserializer: D,
    min: Decimal,
    max: Decimal,
) -> Result<Decimal, D::Error> {
    bounded(Box::<RawValue>::deserialize(deserializer)?.get(), min, max)
}

fn bounded<E: serde::de::Error>(text: &str, min: Decimal, max: Decimal) -> Result<Decimal, E> {
    Usd::parse_exactly(text)
        .map(|Usd(number)| number)
        .filter(|number| (min..=max).contains(number) && number.normalize().scale() <= 10)
        .ok_or_else(|| E::custom(format!("expected a number from {min} to {max} with at most 10 decimals")))
}

/// Amounts from a least to a greatest value.
macro_rules! amounts {
    ($($(#[$attribute:meta])* $name:ident: $min:expr, $max:expr;)*) => { $(
        #[derive(Clone, Copy, ToSchema)]
        $(#[$attribute])*
        pub struct $name(pub Usd);

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                decimal(deserializer, $min, $max).map(|amount| Self(Usd(amount)))
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                self.0.serialize(serializer)
            }
        }
    )* };
}

amounts! {
    /// A budget in US dollars, 0 to 1,000,000,000.
    #[schema(value_type = f64, minimum = 0, maximum = 1_000_000_000, example = 25)]
    Budget: Decimal::ZERO, MAX_USD;

    /// Credits for one US dollar, 0.0001 to 1,000,000.
    #[schema(value_type = f64, minimum = 0.0001, maximum = 1_000_000, example = 10)]
    Rate: Decimal::new(1, 4), Decimal::from(1_000_000);

    /// Credits for 1,000 tokens whose cost is unknown, 0 to 1,000,000.
    #[schema(value_type = f64, minimum = 0, maximum = 1_000_000, example = 1)]
    UnpricedRate: Decimal::ZERO, Decimal::from(1_000_000);
}

impl Rate {
    /// The `credits_per_dollar` of a team whose creator gives none.
    pub const DEFAULT: Rate = Rate(Usd(Decimal::TEN));
}

/// The greatest number of something that a team may have: 0 to 1,000,000,000; 0 is no limit.
type Most = Whole<0, 1_000_000_000>;

/// Limits to set. Members that are left out stay as they are; `null` takes the deployment's limit, and 0 is no limit.
#[skip_serializing_none]
#[derive(Clone, Copy, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"open_calls": 32, "cost_usd_per_job": 2.5}))]
pub struct NewLimits {
    /// How many calls a job may make.
    #[serde(default, with = "double_option")]
    #[schema(value_type = Option<Most>)]
    calls_per_job: Option<Option<Most>>,
    /// How many calls of a job may be open at once.
    #[serde(default, with = "double_option")]
    #[schema(value_type = Option<Most>)]
    open_calls_per_job: Option<Option<Most>>,
    /// How many calls of the team may be open at once.
    #[serde(default, with = "double_option")]
    #[schema(value_type = Option<Most>)]
    open_calls: Option<Option<Most>>,
    /// How many jobs of the team may be open at once.
    #[serde(default, with = "double_option")]
    #[schema(value_type = Option<Most>)]
    open_jobs: Option<Option<Most>>,
    /// How many US dollars a job may cost.
    #[serde(default, with = "double_option")]
    #[schema(value_type = Option<Budget>)]
    cost_usd_per_job: Option<Option<Budget>>,
}

/// The URL that alerts are sent to: `http` or `https`, without credentials and fragment, at most 2000 ASCII characters.
#[derive(Deserialize, Serialize, ToSchema)]
#[serde(try_from = "String")]
#[schema(value_type = String, pattern = r"^https?://[A-Za-z0-9.-]+(:[0-9]{1,4})?(/[A-Za-z0-9._~%/-]{0,1000})?$",
    example = "https://hooks.example.com/llm-jobs")]
pub struct WebhookUrl(String);

impl TryFrom<String> for WebhookUrl {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let url: Option<axum::http::Uri> = text.parse().ok();
        let fits = url.is_some_and(|url| {
            matches!(url.scheme_str(), Some("http" | "https"))
                && url.authority().is_some_and(|authority| {
                    // An invalid port would be noticed only when there is something to send.
                    let bare = authority.as_str() == authority.host();
                    !authority.as_str().contains('@') && (bare || authority.port_u16().is_some())
                })
        });
        // A fragment would not be sent, and is not part of the parsed URL.
        if fits && text.len() <= 2000 && text.is_ascii() && !text.contains('#') {
            Ok(Self(text))
        } else {
            Err("expected a URL with http or https, without credentials and fragment")
        }
    }
}

/// The customer's price in US dollars for each job that is charged a credit, in addition to the credits.
///
/// * `flat`: a fixed price for each job.
/// * `markup`: the cost of the job's calls plus a percentage.
/// * `tiered`: a price that depends on how many of the team's jobs have already been charged in the calendar month.
#[derive(Serialize, ToSchema)]
#[schema(example = json!({"mode": "flat", "price_per_job_usd": "0.50"}))]
pub struct Pricing {
    /// How the price is calculated.
    mode: PricingMode,
    /// For `flat`: the price of a job in US dollars.
    #[serde(skip_serializing_if = "Option::is_none")]
    price_per_job_usd: Option<Price>,
    /// For `markup`: the percentage that is added to the cost.
    #[serde(skip_serializing_if = "Option::is_none")]
    markup_percent: Option<Price>,
    /// For `tiered`: 1 to 50 tiers with ascending `up_to`, which is `null` in the last.
    #[serde(skip_serializing_if = "Option::is_none")]
    tiers: Option<Vec<Tier>>,
}

/// How the price of a job is calculated.
#[derive(Serialize, Deserialize, Clone, Copy, ToSchema)]
#[serde(rename_all = "lowercase")]
enum PricingMode {
    Flat,
    Markup,
    Tiered,
}

/// A decimal number from 0 to 1,000,000,000 with at most ten decimals, as a string or a number.
#[derive(Clone, Copy, ToSchema)]
#[schema(value_type = String, pattern = r"^[0-9]{1,9}(\.[0-9]{1,10})?$", example = "0.50")]
struct Price(Decimal);

impl<'de> Deserialize<'de> for Price {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let raw = Box::<RawValue>::deserialize(deserializer)?;
        let text = raw.get();
        let text = text.strip_prefix('"').and_then(|text| text.strip_suffix('"')).unwrap_or(text);
        bounded(text, Decimal::ZERO, MAX_USD).map(Self)
    }
}

impl Serialize for Price {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.to_string().serialize(serializer)
    }
}

/// The price of the jobs up to a number.
#[derive(Serialize, Deserialize, Clone, Copy, ToSchema)]
#[serde(deny_unknown_fields)]
struct Tier {
    /// The last job of the calendar month that has this price; `null`: without limit.
    up_to: Option<Limit>,
    /// The price of a job in US dollars.
    price_per_job_usd: Price,
}

impl<'de> Deserialize<'de> for Pricing {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Fields {
            mode: PricingMode,
            price_per_job_usd: Option<Price>,
            markup_percent: Option<Price>,
            tiers: Option<Vec<Tier>>,
        }
        let Fields { mode, price_per_job_usd, markup_percent, tiers } = Fields::deserialize(deserializer)?;
        let fits = match (mode, price_per_job_usd, markup_percent, tiers.as_deref()) {
            (PricingMode::Flat, Some(_), None, None) | (PricingMode::Markup, None, Some(_), None) => true,
            (PricingMode::Tiered, None, None, Some(tiers)) => ascending(tiers),
            _ => false,
        };
        if !fits {
            return Err(D::Error::custom(
                "expected mode flat with price_per_job_usd, mode markup with markup_percent, or mode tiered with \
                 tiers: 1 to 50 of {up_to, price_per_job_usd}, up_to ascending and null in the last",
            ));
        }
        Ok(Self { mode, price_per_job_usd, markup_percent, tiers })
    }
}

fn ascending(tiers: &[Tier]) -> bool {
    let Some((last, others)) = tiers.split_last() else { return false };
    let ends: Option<Vec<i64>> = others.iter().map(|tier| tier.up_to.map(Limit::get)).collect();
    last.up_to.is_none() && tiers.len() <= 50 && ends.is_some_and(|ends| ends.is_sorted_by(|a, b| a < b))
}
