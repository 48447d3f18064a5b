//! The models that the stand-in knows, with the prices and time limits of the real LiteLLM's test configuration.

use std::time::Duration;

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

/// A model as LiteLLM's configuration describes it.
#[derive(Debug)]
pub(crate) struct Model {
    pub name: &'static str,
    /// USD per prompt token and per completion token; without it LiteLLM knows no price.
    pub prices: Option<(f64, f64)>,
    /// How long LiteLLM waits for the first byte, and for each further one.
    pub timeout: Duration,
    /// What `/v1/models` adds for models that LiteLLM's price list knows: mode, input and output tokens.
    listed: Option<(&'static str, u32, Option<u32>)>,
}

const CHEAP: (f64, f64) = (0.000_000_5, 0.000_001_5);

const fn model(name: &'static str) -> Model {
    Model { name, prices: Some(CHEAP), timeout: Duration::from_secs(30), listed: None }
}

const fn priced(name: &'static str, prices: (f64, f64)) -> Model {
    Model { prices: Some(prices), ..model(name) }
}

const fn chat(name: &'static str, prices: (f64, f64), input: u32, output: u32) -> Model {
    Model { listed: Some(("chat", input, Some(output))), ..priced(name, prices) }
}

const fn impatient(name: &'static str) -> Model {
    Model { timeout: Duration::from_secs(2), ..model(name) }
}

static MODELS: [Model; 27] = [
    chat("gpt-3.5-turbo", CHEAP, 16_385, 4_096),
    chat("gpt-4", (0.000_03, 0.000_06), 8_192, 4_096),
    chat("gpt-4-turbo", (0.000_01, 0.000_03), 128_000, 4_096),
    chat("gpt-4o", (0.000_002_5, 0.000_01), 128_000, 16_384),
    chat("gpt-4o-mini", (0.000_000_15, 0.000_000_6), 128_000, 16_384),
    priced("claude-3-sonnet", (0.000_003, 0.000_015)),
    priced("claude-3-opus", (0.000_015, 0.000_075)),
    priced("expensive", (0.001, 0.001)),
    Model { prices: None, ..model("unpriced") },
    Model {
        prices: Some((0.000_000_02, 0.0)),
        listed: Some(("embedding", 8_191, None)),
        ..model("text-embedding-3-small")
    },
    model("slow"),
    model("huge"),
    model("err400"),
    model("err400-context"),
    model("err401"),
    model("err404"),
    model("err429"),
    model("err500"),
    model("err503"),
    impatient("timeout"),
    model("refused"),
    model("cut"),
    model("midstream-error"),
    impatient("stall"),
    model("early-end"),
    model("empty"),
    model("no-usage"),
];

impl Model {
    /// The model of that name.
    pub fn named(name: &str) -> Option<&'static Model> {
        MODELS.iter().find(|model| model.name == name)
    }

    /// All names, in the order of the configuration.
    pub fn names() -> impl Iterator<Item = &'static str> {
        MODELS.iter().map(|model| model.name)
    }

    /// The deployment's id, which LiteLLM derives from its settings.
    pub fn id(&self) -> String {
        hex(&Sha256::digest(self.name))
    }
}

/// The body of `GET /v1/models` for these names; LiteLLM lists names that it does not know as well.
pub(crate) fn listing(names: &[String]) -> Value {
    let data: Vec<Value> = names.iter().map(|name| entry(name)).collect();
    json!({"data": data, "object": "list"})
}

/// One entry of the list of models.
pub(crate) fn entry(name: &str) -> Value {
    let mut value = json!({"id": name, "object": "model", "created": 1_677_610_602, "owned_by": "openai"});
    if let Some((mode, input, output)) = Model::named(name).and_then(|model| model.listed) {
        value["mode"] = json!(mode);
        value["max_input_tokens"] = json!(input);
        if let Some(output) = output {
            value["max_output_tokens"] = json!(output);
        }
    }
    value
}

/// Bytes in lower-case hexadecimal.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
