//! How a model behaves: by its name, and by marks in the prompt such as `[[chunks=20]] [[status=503]]`.

use std::sync::LazyLock;
use std::time::Duration;

use regex::{Captures, Regex};

/// What the model behind LiteLLM does instead of answering normally. Lengths are in pieces; one piece is one token.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Behaviour {
    /// Answer with this error.
    pub status: u16,
    /// The error's code, such as `content_policy_violation`.
    pub code: Option<String>,
    /// A header of the error, in seconds.
    pub retry_after: Option<u64>,
    /// Silence before the first byte.
    pub first_ms: u64,
    /// Silence before each piece of a stream.
    pub delay_ms: u64,
    /// Length of the reply.
    pub chunks: Option<usize>,
    /// Length in bytes of each of those pieces.
    pub chunk_bytes: usize,
    /// Whether each piece of a stream says when it was sent, in microseconds since 1970, instead of what the reply is.
    pub clock: bool,
    /// The finish reason to claim.
    pub finish: Option<String>,
    /// Whether the model says how many tokens it used.
    pub usage: bool,
    /// Tokens to claim, which need not be plausible.
    pub prompt_tokens: Option<i128>,
    /// Tokens to claim, which need not be plausible.
    pub completion_tokens: Option<i128>,
    /// What LiteLLM says that the answer cost, whether that is an amount or not.
    pub cost: Option<String>,
    /// After so many pieces the connection to the model breaks.
    pub cut_after: Option<usize>,
    /// After so many pieces a stream ends without a finish reason.
    pub end_after: Option<usize>,
    /// After so many pieces an error event comes.
    pub error_after: Option<usize>,
    /// After so many pieces nothing more comes.
    pub stall_after: Option<usize>,
    /// Nobody listens where the model should be.
    pub refused: bool,
}

const NORMAL: Behaviour = Behaviour {
    status: 200,
    code: None,
    retry_after: None,
    first_ms: 0,
    delay_ms: 0,
    chunks: None,
    chunk_bytes: 0,
    clock: false,
    finish: None,
    usage: true,
    prompt_tokens: None,
    completion_tokens: None,
    cost: None,
    cut_after: None,
    end_after: None,
    error_after: None,
    stall_after: None,
    refused: false,
};

const MARKS: &str = "status, code, retry_after, first_ms, delay_ms, chunks, chunk_bytes, clock, finish, usage, \
                     prompt_tokens, completion_tokens, cost, cut_after, end_after, error_after, stall_after";

static MARK: LazyLock<Regex> =
    LazyLock::new(|| Regex::new(r"\[\[(\w+)=([^\]]*)\]\]").expect("the pattern is a constant"));

/// A text without its marks.
pub(crate) fn without_marks(text: &str) -> String {
    MARK.replace_all(text, |_: &Captures<'_>| "").into_owned()
}

impl Behaviour {
    /// The behaviour that belongs to the model's name.
    pub fn of(model: &str) -> Behaviour {
        let broken = Behaviour { chunks: Some(8), delay_ms: 20, ..NORMAL };
        match model {
            "slow" => Behaviour { first_ms: 2000, delay_ms: 300, ..NORMAL },
            "timeout" => Behaviour { first_ms: 3_600_000, ..NORMAL },
            "stall" => Behaviour { stall_after: Some(2), ..NORMAL },
            "cut" => Behaviour { cut_after: Some(3), ..broken },
            "early-end" => Behaviour { end_after: Some(3), ..broken },
            "midstream-error" => Behaviour { error_after: Some(3), ..broken },
            "empty" => Behaviour { chunks: Some(0), ..NORMAL },
            "huge" => Behaviour { chunks: Some(2000), chunk_bytes: 1000, ..NORMAL },
            "no-usage" => Behaviour { usage: false, ..NORMAL },
            "err400" => Behaviour { status: 400, ..NORMAL },
            "err400-context" => {
                Behaviour { status: 400, code: Some("context_length_exceeded".to_owned()), ..NORMAL }
            }
            "err401" => Behaviour { status: 401, ..NORMAL },
            "err404" => Behaviour { status: 404, ..NORMAL },
            "err429" => Behaviour { status: 429, retry_after: Some(7), ..NORMAL },
            "err500" => Behaviour { status: 500, ..NORMAL },
            "err503" => Behaviour { status: 503, ..NORMAL },
            "refused" => Behaviour { refused: true, ..NORMAL },
            _ => NORMAL,
        }
    }

    /// This behaviour with the marks of a text applied.
    ///
    /// # Errors
    /// The upstream's complaint about a mark that does not exist or whose value is no number.
    pub fn marked(mut self, text: &str) -> Result<Behaviour, String> {
        for mark in MARK.captures_iter(text) {
            self.apply(&mark[1], &mark[2])?;
        }
        Ok(self)
    }

    fn apply(&mut self, name: &str, value: &str) -> Result<(), String> {
        match name {
            "status" => self.status = number(value)?,
            "code" => self.code = Some(value.to_owned()),
            "retry_after" => self.retry_after = Some(number(value)?),
            "first_ms" => self.first_ms = number(value)?,
            "delay_ms" => self.delay_ms = number(value)?,
            "chunks" => self.chunks = Some(number(value)?),
            "chunk_bytes" => self.chunk_bytes = number(value)?,
            "clock" => self.clock = number::<u64>(value)? != 0,
            "finish" => self.finish = Some(value.to_owned()),
            "usage" => self.usage = number::<u64>(value)? != 0,
            "prompt_tokens" => self.prompt_tokens = Some(number(value)?),
            "completion_tokens" => self.completion_tokens = Some(number(value)?),
            "cost" => self.cost = Some(value.to_owned()),
            "cut_after" => self.cut_after = Some(number(value)?),
            "end_after" => self.end_after = Some(number(value)?),
            "error_after" => self.error_after = Some(number(value)?),
            "stall_after" => self.stall_after = Some(number(value)?),
            _ => return Err(format!("there is no mark {name}; there are: {MARKS}")),
        }
        Ok(())
    }

    /// Silence before the first byte.
    pub fn first(&self) -> Duration {
        Duration::from_millis(self.first_ms)
    }

    /// Silence before each piece of a stream.
    pub fn delay(&self) -> Duration {
        Duration::from_millis(self.delay_ms)
    }
}

fn number<T: std::str::FromStr>(value: &str) -> Result<T, String> {
    value.trim().parse().map_err(|_| format!("invalid literal for int() with base 10: '{value}'"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_win_over_the_models_name() {
        let behaviour =
            Behaviour::of("err503").marked("say [[status=200]] hi [[chunks=3]] [[finish=length]]");
        let expected = Behaviour { chunks: Some(3), finish: Some("length".to_owned()), ..NORMAL };
        assert_eq!(behaviour, Ok(expected));
        assert_eq!(without_marks("say [[status=200]]hi"), "say hi");
    }

    #[test]
    fn an_unknown_mark_and_a_bad_number_are_complained_about() {
        assert!(
            Behaviour::of("x")
                .marked("[[nope=1]]")
                .is_err_and(|text| text.starts_with("there is no mark nope"))
        );
        let complaint = Behaviour::of("x").marked("[[chunks=x]]").expect_err("x is no number");
        assert_eq!(complaint, "invalid literal for int() with base 10: 'x'");
    }
}
