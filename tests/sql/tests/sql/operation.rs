//! What can be done to a team, and what it answers, in the words of the [model](super::model). Costs and prices are
//! whole numbers here, in millionths of a USD.

/// An operation on the team. Keys, jobs and calls are numbered in the order in which they came to be.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Operation {
    CreateJob {
        key: usize,
    },
    OpenCall {
        key: usize,
        job: usize,
    },
    SettleCall {
        call: usize,
        used: Used,
    },
    /// Of a call that is its job's only one, or so its settling believes: the job ends with it.
    SettleJob {
        call: usize,
        used: Used,
    },
    CompleteJob {
        key: usize,
        job: usize,
        status: &'static str,
    },
    /// LiteLLM tells the tokens and the cost of a call, as far as it knows them.
    PriceCall {
        call: usize,
        tokens: Option<i64>,
        cost: Option<i64>,
    },
    /// No number is all that is left.
    Refund {
        job: usize,
        credits: Option<i64>,
    },
    AddCredits {
        amount: i64,
    },
    Adjust {
        change: i64,
    },
    ConfigureRefill {
        enabled: bool,
        amount: i64,
        period: &'static str,
        mode: RefillMode,
    },
    /// `limit` counts in soft mode.
    SetBudget {
        soft: bool,
        limit: Option<i64>,
    },
    SetTerms {
        terms: Terms,
    },
    RotateKey {
        key: usize,
        grace: bool,
    },
    RevokeKey {
        key: usize,
    },
    GetBalance,
    Sweep,
    DeleteTeam,
    /// Not functions: the job's or the call's deadline passes, a replaced key's grace, some periods of the automatic
    /// refill.
    JobDeadlinePasses {
        job: usize,
    },
    CallDeadlinePasses {
        call: usize,
    },
    GracePasses {
        key: usize,
    },
    PeriodsPass {
        number: i64,
    },
}

/// What a settling says. Two settlings of one call may differ in all of it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Used {
    pub status: &'static str,
    pub tokens: i64,
    pub cost: Option<i64>,
    pub last: bool,
    pub delivered: Option<bool>,
}

/// What an automatic refill does.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum RefillMode {
    Add { cap: Option<i64> },
    ResetTo,
}

/// What a job costs.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Terms {
    pub billing: Billing,
    pub pricing: Pricing,
    /// Whether a job that delivered output is charged however it ended.
    pub delivered: bool,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Billing {
    Job,
    Usd { credits_per_dollar: i64, credits_per_1k_tokens_unpriced: i64 },
    Tokens { tokens_per_credit: i64 },
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Pricing {
    None,
    Flat(i64),
    Markup { percent: i64 },
    Tiered(&'static [(Option<i64>, i64)]),
}

/// What an operation answers, as far as the model knows it.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    Done,
    Refused { sqlstate: &'static str, message_ends: String },
    Settled(bool),
    Balance { allocated: i64, used: i64, held: i64 },
    Completed(Option<Completion>),
}

/// What completing a job answered, and answers again, but for what the job is charged, which is as of now.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Completion {
    pub total_calls: i64,
    pub successful_calls: i64,
    pub failed_calls: i64,
    pub refused_calls: i64,
    pub unpriced_calls: i64,
    pub total_tokens: i64,
    pub credit_applied: bool,
    pub credits_charged: i64,
    pub credits_refunded: i64,
    pub charge_is_final: bool,
    pub credits_remaining: i64,
}
