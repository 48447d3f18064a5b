//! Reads request bodies as LiteLLM's pydantic models do: lenient about numbers in strings, silent about unknown fields.

use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use crate::error::ApiError;
use crate::models::hex;

/// The body of an admin request.
#[derive(Debug)]
pub(crate) struct Fields(Map<String, Value>);

/// What a request says about a field of an update.
#[derive(Debug, PartialEq)]
pub(crate) enum Change<T> {
    /// Nothing: it stays as it is.
    Keep,
    /// `null`: it is cleared.
    Clear,
    /// The new value.
    Set(T),
}

impl<T> Change<T> {
    /// The value, where clearing and leaving out mean the same.
    pub fn value(self) -> Option<T> {
        match self {
            Change::Set(value) => Some(value),
            Change::Keep | Change::Clear => None,
        }
    }

    /// Applies the change to a setting that may be empty.
    pub fn apply(self, setting: &mut Option<T>) {
        match self {
            Change::Keep => {}
            Change::Clear => *setting = None,
            Change::Set(value) => *setting = Some(value),
        }
    }
}

impl Fields {
    /// # Errors
    /// 422 for a missing body and for what is no JSON, 500 for JSON that is no object, as LiteLLM has it.
    pub fn parse(body: &[u8]) -> Result<Fields, ApiError> {
        if body.is_empty() {
            return Err(ApiError::validation("missing", json!(["body"]), "Field required"));
        }
        match serde_json::from_slice(body) {
            Ok(Value::Object(fields)) => Ok(Fields(fields)),
            Ok(_) => Err(ApiError::no_object()),
            Err(error) => {
                let at = error.column();
                Err(ApiError::validation("json_invalid", json!(["body", at]), "JSON decode error"))
            }
        }
    }

    fn read<T>(
        &self,
        name: &str,
        convert: impl Fn(&Value) -> Result<T, (&'static str, &'static str)>,
    ) -> Result<Change<T>, ApiError> {
        match self.0.get(name) {
            None => Ok(Change::Keep),
            Some(Value::Null) => Ok(Change::Clear),
            Some(value) => match convert(value) {
                Ok(value) => Ok(Change::Set(value)),
                Err((kind, message)) => Err(ApiError::validation(kind, json!(["body", name]), message)),
            },
        }
    }

    /// A string.
    pub fn text(&self, name: &str) -> Result<Change<String>, ApiError> {
        self.read(name, |value| {
            value.as_str().map(str::to_owned).ok_or(("string_type", "Input should be a valid string"))
        })
    }

    /// A string that must be there.
    pub fn required_text(&self, name: &str) -> Result<String, ApiError> {
        match self.0.get(name) {
            None => Err(ApiError::validation("missing", json!(["body", name]), "Field required")),
            Some(value) => value.as_str().map(str::to_owned).ok_or_else(|| {
                ApiError::validation("string_type", json!(["body", name]), "Input should be a valid string")
            }),
        }
    }

    /// A number, which may be written in a string or as a truth value.
    pub fn float(&self, name: &str) -> Result<Change<f64>, ApiError> {
        self.read(name, |value| match value {
            Value::Number(number) => number.as_f64().ok_or(("float_type", "Input should be a valid number")),
            Value::Bool(truth) => Ok(f64::from(*truth)),
            Value::String(text) => text.trim().parse().map_err(|_| {
                ("float_parsing", "Input should be a valid number, unable to parse string as a number")
            }),
            _ => Err(("float_type", "Input should be a valid number")),
        })
    }

    /// A budget: a number that is neither negative nor infinite, else `refuse` makes an error of the complaint.
    pub fn budget(&self, name: &str, refuse: fn(&str) -> ApiError) -> Result<Change<f64>, ApiError> {
        match self.float(name)? {
            Change::Set(budget) if !budget.is_finite() || budget < 0.0 => {
                let received = crate::cost::python_float(budget);
                let complaint = format!("{name} must be a non-negative finite number. Received: {received}");
                Err(refuse(&complaint))
            }
            change => Ok(change),
        }
    }

    /// A whole number, which may be written in a string, as `7.0` or as a truth value.
    pub fn integer(&self, name: &str) -> Result<Change<i64>, ApiError> {
        const PARSING: &str = "Input should be a valid integer, unable to parse string as an integer";
        const FRACTION: &str = "Input should be a valid integer, got a number with a fractional part";
        self.read(name, |value| match value {
            Value::Number(number) => match (number.as_i64(), number.as_f64()) {
                (Some(whole), _) => Ok(whole),
                (None, Some(float)) if float.fract() == 0.0 => Ok(float as i64),
                _ => Err(("int_from_float", FRACTION)),
            },
            Value::String(text) => text.trim().parse().map_err(|_| ("int_parsing", PARSING)),
            Value::Bool(truth) => Ok(i64::from(*truth)),
            _ => Err(("int_type", "Input should be a valid integer")),
        })
    }

    /// A truth value, which may be written as 0 or 1 or in a string.
    pub fn boolean(&self, name: &str) -> Result<Change<bool>, ApiError> {
        self.read(name, |value| match value.to_string().to_lowercase().trim_matches('"') {
            "true" | "1" | "on" | "yes" | "y" | "t" => Ok(true),
            "false" | "0" | "off" | "no" | "n" | "f" => Ok(false),
            _ => Err(("bool_parsing", "Input should be a valid boolean, unable to interpret input")),
        })
    }

    /// A JSON object.
    pub fn object(&self, name: &str) -> Result<Change<Value>, ApiError> {
        self.read(name, |value| match value {
            Value::Object(_) => Ok(value.clone()),
            _ => Err(("dict_type", "Input should be a valid dictionary")),
        })
    }

    /// A list of strings.
    pub fn texts(&self, name: &str) -> Result<Change<Vec<String>>, ApiError> {
        let list = self.read(name, |value| {
            value.as_array().cloned().ok_or(("list_type", "Input should be a valid list"))
        })?;
        let Change::Set(list) = list else {
            return Ok(if self.0.contains_key(name) { Change::Clear } else { Change::Keep });
        };
        let text = |(at, value): (usize, Value)| match value {
            Value::String(text) => Ok(text),
            _ => {
                let loc = json!(["body", name, at]);
                Err(ApiError::validation("string_type", loc, "Input should be a valid string"))
            }
        };
        list.into_iter().enumerate().map(text).collect::<Result<_, _>>().map(Change::Set)
    }

    /// Whether the field is there, whatever it is.
    pub fn has(&self, name: &str) -> bool {
        self.0.get(name).is_some_and(|value| !value.is_null())
    }

    /// Refuses names that LiteLLM does not take from callers, as keys of the body or of its nested objects.
    pub fn refuse_banned(&self) -> Result<(), ApiError> {
        crate::banned::refuse(&self.0)
    }
}

/// The SHA-256 of a key; what is a hash already stays as it is.
pub(crate) fn key_hash(key: &str) -> String {
    if key.starts_with("sk-") { hex(&Sha256::digest(key)) } else { key.to_owned() }
}
