//! What must hold, in words.

/// Gives each rule a name, and counts them.
macro_rules! rules {
    ($($name:ident: $rule:literal,)*) => {
        $(#[doc = $rule] pub const $name: &str = $rule;)*
        /// All rules, besides the invariants of the database.
        pub const RULES: &[&str] = &[$($rule),*];
    };
}

rules! {
    POSSIBLE_ANSWER: "every answer is one that the request can get",
    COME_AGAIN: "whoever is to come again is told when",
    IN_TIME: "every request is answered in time",
    KEY_WORKS: "a key that works is not refused",
    KEY_REVOKED: "a revoked key is refused",
    NOT_SUSPENDED: "only a suspended team is refused as one",
    SUSPENDED: "a suspended team is refused",
    SAME_ANSWER: "a repeated request gets the first answer",
    DONE_ONCE: "a repeated request is done once",
    CALL_ASKED: "every call was asked for",
    CALL_NUMBER: "as many calls are kept as were made",
    CALL_ONCE: "a repeated call is made once",
    CALL_KEPT: "a call that was answered is kept",
    CALL_END: "a call ended as its caller heard",
    FAILURE_IS_FREE: "whoever has heard a call fail is not charged for its job",
    CALL_TOKENS: "the caller is told the tokens that are kept",
    CALL_JOB: "a call is in the job that its caller heard of",
    SETTLED: "every call is settled",
    SETTLED_ONCE: "a call is settled once",
    ABANDONED: "a call that nobody settles is ended by its deadline",
    BILLED: "a call has cost what LiteLLM billed for it",
    BILLED_ONLY: "LiteLLM bills nothing but calls that are kept",
    JOB_ASKED: "every job was asked for",
    JOB_ONCE: "a job is opened once",
    JOB_KEPT: "a job that was answered is kept",
    JOB_LISTED: "a listed job is kept",
    JOB_ENDED_BY: "a job is ended by a request that was done",
    JOB_ENDS_ONCE: "a job ends once",
    ONE_END: "one instant of a job's end fits all that was heard of it",
    EXPIRES: "a job expires at its deadline",
    TOO_LATE: "nothing is done in a job past its deadline",
    COMPLETION_CALLS: "completing a job tells how its calls ended",
    COMPLETION_CHARGE: "completing a job tells what it was charged",
    COMPLETION_SAME: "everybody who completes a job is told the same",
    CREDIT_FOR_JOB: "a job is only opened when there is a credit for it",
    CREDIT_FOR_CORRECTION: "a correction only takes what there is",
    REFUSED_RIGHTLY: "only what does not fit is refused for want of credits",
    CHANGED_ONCE: "credits change once",
    ACCOUNT: "an account is what its requests add up to",
    LEDGER_ROW: "every row of the ledger has a request behind it",
    LEDGER_ORDER: "the ledger has the order of the answers",
    LEDGER_READ: "a ledger that is read is the beginning of the whole",
    REFILL: "a refill is made once a period",
    REFILL_SUSPENDED: "a suspended team gets no refill",
    REFUND_BOUND: "a job is refunded no more than it was charged",
    REFUND_REFUSED: "a refund is refused only where it is more than is left",
    CHARGE_TOLD: "whoever is told what a job was charged is told what the ledger has of it then",
    CHARGE_FINAL: "what a job is charged does not change once it is final",
    LIMIT_HOLDS: "no more is open, made or spent than the limits allow",
    LIMIT_REACHED: "a limit refuses only what it does not allow",
    BUDGET_REACHED: "LiteLLM's budget refuses only what it does not allow",
    HIDDEN: "nobody is shown costs or models who may not see them, and everybody who may",
    RESYNC: "whoever puts LiteLLM right is told what was wrong",
    LATE_COST: "a call that LiteLLM has billed is settled by the upkeep",
    TRUE_ONCE: "every number that is told was true at some instant of its request",
    SECRETS: "no key and no prompt is kept or logged",
}
