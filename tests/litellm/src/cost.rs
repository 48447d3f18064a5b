//! Tokens and what they cost, computed and printed as Python does it.

use std::sync::LazyLock;

use regex::Regex;
use serde_json::{Value, json};

use crate::models::Model;

/// Tokens of one call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Usage {
    pub prompt: i128,
    pub completion: i128,
    /// Whether LiteLLM counted the tokens itself, because the upstream did not say.
    pub counted_by_litellm: bool,
}

impl Usage {
    /// Prompt and completion together.
    pub fn total(&self) -> i128 {
        self.prompt.saturating_add(self.completion)
    }

    /// The `usage` member of an answer.
    pub fn to_json(self) -> Value {
        let mut value = json!({
            "completion_tokens": number(self.completion),
            "prompt_tokens": number(self.prompt),
            "total_tokens": number(self.total()),
        });
        if self.counted_by_litellm {
            value["completion_tokens_details"] =
                json!({"reasoning_tokens": 0, "text_tokens": number(self.completion)});
        } else {
            value["completion_tokens_details"] = json!({"reasoning_tokens": 0});
            value["prompt_tokens_details"] = json!({"cached_tokens": 0});
        }
        value
    }
}

/// A count in JSON, cut off at 2^64 - 1.
pub(crate) fn number(count: i128) -> Value {
    let clamped = count.clamp(i64::MIN.into(), u64::MAX.into());
    i64::try_from(clamped)
        .map_or_else(|_| json!(u64::try_from(clamped).unwrap_or(u64::MAX)), |count| json!(count))
}

/// USD for one call, in the parts that LiteLLM's headers name.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(crate) struct Cost {
    pub input: f64,
    pub output: f64,
}

impl Cost {
    /// What this usage of the model costs; 0 for a model without a price.
    pub fn of(model: &Model, usage: Usage) -> Cost {
        let (input, output) = model.prices.unwrap_or_default();
        Cost { input: usage.prompt as f64 * input, output: usage.completion as f64 * output }
    }

    /// So much for the call as a whole.
    pub fn whole(usd: f64) -> Cost {
        Cost { input: usd, output: 0.0 }
    }

    /// Input and output together.
    pub fn total(&self) -> f64 {
        self.input + self.output
    }
}

/// A float as Python's `repr` prints it: `0.048`, `5.0`, `1.32e-05`.
pub(crate) fn python_float(value: f64) -> String {
    let scientific = format!("{value:e}");
    let (digits, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    match exponent.parse::<i32>().unwrap_or(0) {
        -4..16 => format!("{value:?}"),
        exponent => format!("{digits}e{}{:02}", if exponent < 0 { '-' } else { '+' }, exponent.abs()),
    }
}

/// How OpenAI's tokenizer splits a text into words before it looks into them. Common words are one token.
static WORD: LazyLock<Regex> = LazyLock::new(|| {
    let pattern = r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+";
    Regex::new(pattern).expect("the pattern is a constant")
});

/// Roughly the tokens of a text as LiteLLM counts them where the upstream does not say: exact for common English words.
pub(crate) fn count_tokens(text: &str) -> u64 {
    WORD.find_iter(text).count() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn floats_look_as_python_prints_them() {
        let printed: Vec<String> =
            [0.0, 5.0, 0.00025, 0.0001, 1.32e-5, 3.0 * 0.00001, 1e-6, 1e16, 123456789.5]
                .map(python_float)
                .into();
        let expected = [
            "0.0",
            "5.0",
            "0.00025",
            "0.0001",
            "1.32e-05",
            "3.0000000000000004e-05",
            "1e-06",
            "1e+16",
            "123456789.5",
        ];
        assert_eq!(printed, expected);
    }

    #[test]
    fn tokens_are_counted_as_the_real_litellm_did() {
        let texts = [
            "hi",
            "hi there",
            "You said: hi there",
            "word0 word1 word2 ",
            "[[usage=0]] a b",
            "[[end_after=0]]",
        ];
        assert_eq!(texts.map(count_tokens), [1, 2, 5, 7, 7, 6]);
    }

    #[test]
    fn a_price_times_tokens_has_pythons_rounding() {
        let usage = Usage { prompt: 2, completion: 8, counted_by_litellm: false };
        let cost = Cost::of(Model::named("early-end").expect("a model"), usage);
        assert_eq!(python_float(cost.total()), "1.3000000000000001e-05");
    }
}
