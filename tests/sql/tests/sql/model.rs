//! What the functions should do, in a few lines of plain Rust: one team, its keys, its jobs and their calls, one
//! operation after another. Revenue is in hundred-millionths of a USD here, LiteLLM's budget in tenths.

use crate::operation::{Billing, Completion, Operation, Outcome, Pricing, Terms, Used};

#[derive(Debug, Clone, Copy)]
pub struct Job {
    pub status: &'static str,
    pub overdue: bool,
    pub terms: Terms,
    pub revenue: Option<i128>,
    pub completion: Option<Completion>,
}

#[derive(Debug, Clone, Copy)]
pub struct Call {
    pub job: usize,
    pub status: &'static str,
    pub overdue: bool,
    pub settled: bool,
    pub tokens: i64,
    pub cost: Option<i64>,
}

#[derive(Debug, Clone, Copy)]
pub struct Key {
    pub works: bool,
    pub replaced: bool,
}

#[derive(Debug, Clone, Copy)]
pub struct Refill {
    pub amount: i64,
    pub period: &'static str,
    pub due: i64,
}

/// The team.
#[derive(Debug, Clone)]
pub struct Model {
    pub allocated: i64,
    pub used: i64,
    pub held: i64,
    /// How far the available credits may fall.
    pub floor: Option<i64>,
    pub terms: Terms,
    pub refill: Option<Refill>,
    pub budget: i64,
    /// How often 80 and 100 percent were crossed.
    pub alerts: [i64; 2],
    pub deleted: bool,
    pub keys: Vec<Key>,
    pub jobs: Vec<Job>,
    pub calls: Vec<Call>,
}

impl Job {
    fn is_open(&self) -> bool {
        ["pending", "in_progress"].contains(&self.status)
    }

    pub fn charged(&self) -> i64 {
        self.completion.map_or(0, |completion| completion.credits_charged)
    }
}

/// Every refusal leaves all as it was, also what was overdue.
type Done = Result<Outcome, Outcome>;

impl Model {
    /// A team with one key, these credits and terms, and a budget of 100 USD.
    pub fn new(credits: i64, floor: Option<i64>, terms: Terms) -> Self {
        Self {
            allocated: credits,
            used: 0,
            held: 0,
            floor,
            terms,
            refill: None,
            budget: 1000,
            alerts: [0, 0],
            deleted: false,
            keys: vec![Key { works: true, replaced: false }],
            jobs: vec![],
            calls: vec![],
        }
    }

    /// Does it and says what the answer has to be.
    pub fn apply(&mut self, operation: Operation) -> Outcome {
        let before = self.clone();
        self.try_apply(operation).unwrap_or_else(|refusal| {
            *self = before;
            refusal
        })
    }

    fn try_apply(&mut self, operation: Operation) -> Done {
        use Operation::*;
        match operation {
            CreateJob { key } => self.create_job(key),
            OpenCall { key, job } => self.begin_call(key, job),
            SettleCall { call, used } => Ok(Outcome::Settled(self.settle(call, used))),
            SettleJob { call, used } => Ok(Outcome::Completed(self.settle_job(call, used))),
            CompleteJob { key, job, status } => {
                self.key_works(key)?;
                self.complete(job, status).map(|completion| Outcome::Completed(Some(completion)))
            }
            GetBalance => {
                self.exists()?;
                self.sweep();
                Ok(Outcome::Balance { allocated: self.allocated, used: self.used, held: self.held })
            }
            _ => {
                self.change(operation)?;
                Ok(Outcome::Done)
            }
        }
    }

    /// What answers nothing that the model knows.
    fn change(&mut self, operation: Operation) -> Result<(), Outcome> {
        use Operation::*;
        match operation {
            AddCredits { amount } => {
                self.exists()?;
                self.add(amount);
            }
            Adjust { change } => {
                self.exists()?;
                self.sweep();
                let available = self.available();
                if change < 0 && self.floor.is_some_and(|floor| available + change < floor) {
                    return Err(refused("LJ005", format!("Required: {}, Available: {available}", -change)));
                }
                self.add(change);
            }
            ConfigureRefill { enabled, amount, period } => {
                self.exists()?;
                self.sweep();
                let due = self.refill.filter(|refill| refill.period == period).map_or(0, |refill| refill.due);
                self.refill = enabled.then_some(Refill { amount, period, due });
            }
            SetBudget { soft, limit } => {
                self.exists()?;
                self.floor = if soft { limit.map(|limit| -limit) } else { Some(0) };
            }
            SetTerms { terms } => {
                self.exists()?;
                self.terms = terms;
            }
            RotateKey { key, grace } => {
                self.exists()?;
                if self.keys[key].replaced {
                    return Err(refused("LJ006", " not found".into()));
                }
                self.keys[key] = Key { works: grace, replaced: true };
                self.keys.push(Key { works: true, replaced: false });
            }
            RevokeKey { key } => {
                self.exists()?;
                self.keys[key] = Key { works: false, replaced: true };
            }
            DeleteTeam => self.delete(),
            Sweep => self.sweep(),
            JobDeadlinePasses { job } => self.jobs[job].overdue = true,
            CallDeadlinePasses { call } => self.calls[call].overdue = true,
            GracePasses { key } => self.keys[key].works &= !self.keys[key].replaced,
            PeriodsPass { number } => {
                if let Some(refill) = &mut self.refill {
                    refill.due += number;
                }
            }
            _ => unreachable!("{operation:?} answers something"),
        }
        Ok(())
    }

    fn exists(&self) -> Result<(), Outcome> {
        if self.deleted { Err(refused("LJ006", " not found".into())) } else { Ok(()) }
    }

    fn key_works(&self, key: usize) -> Result<(), Outcome> {
        let works = self.keys[key].works && !self.deleted;
        if works { Ok(()) } else { Err(refused("LJ001", "Invalid API key".into())) }
    }

    fn available(&self) -> i64 {
        self.allocated - self.used - self.held
    }

    /// The one place where balances change.
    fn post(&mut self, allocated: i64, used: i64) {
        let (before_allocated, before_used) = (self.allocated, self.used);
        self.allocated += allocated;
        self.used += used;
        for (percent, alerts) in [80, 100].into_iter().zip(&mut self.alerts) {
            let reached = |used: i64, allocated: i64| used * 100 >= allocated * percent;
            *alerts +=
                i64::from(reached(self.used, self.allocated) && !reached(before_used, before_allocated));
        }
    }

    fn add(&mut self, change: i64) {
        self.post(change, 0);
        self.budget = (self.budget + change).max(0);
    }

    fn sweep(&mut self) {
        for call in self.calls.iter_mut().filter(|call| call.status == "open" && call.overdue) {
            call.status = "abandoned";
        }
        for job in self.jobs.iter_mut().filter(|job| job.is_open() && job.overdue) {
            job.status = "expired";
            self.held -= 1;
        }
        if let Some(Refill { amount, due, .. }) = self.refill {
            (0..due).for_each(|_| self.add(amount));
            self.refill = self.refill.map(|refill| Refill { due: 0, ..refill });
        }
    }

    fn create_job(&mut self, key: usize) -> Done {
        self.key_works(key)?;
        self.sweep();
        let available = self.available();
        if self.floor.is_some_and(|floor| available - 1 < floor) {
            return Err(refused("LJ005", format!("Required: 1, Available: {available}")));
        }
        self.held += 1;
        let terms = self.terms;
        self.jobs.push(Job { status: "pending", overdue: false, terms, revenue: None, completion: None });
        Ok(Outcome::Done)
    }

    fn is_not_over(&self, job: usize) -> Result<(), Outcome> {
        let job = self.jobs[job];
        let ended = if job.is_open() { job.overdue.then_some("expired") } else { Some(job.status) };
        ended.map_or(Ok(()), |status| Err(refused("LJ008", format!("is already {status}"))))
    }

    fn begin_call(&mut self, key: usize, job: usize) -> Done {
        self.key_works(key)?;
        self.is_not_over(job)?;
        self.jobs[job].status = "in_progress";
        self.calls.push(Call { job, status: "open", overdue: false, settled: false, tokens: 0, cost: None });
        Ok(Outcome::Done)
    }

    fn settle(&mut self, call: usize, Used { status, tokens, cost, last }: Used) -> bool {
        let call = &mut self.calls[call];
        if call.settled {
            return false;
        }
        if call.status == "open" {
            call.status = status;
        }
        let more = cost.unwrap_or(0) - call.cost.unwrap_or(0);
        (call.settled, call.tokens, call.cost) = (last, tokens, cost);
        let job = &mut self.jobs[call.job];
        if let (Some(revenue), Pricing::Markup { percent }) = (&mut job.revenue, job.terms.pricing) {
            *revenue += i128::from(more) * i128::from(100 + percent);
        }
        true
    }

    fn settle_job(&mut self, call: usize, used: Used) -> Option<Completion> {
        self.settle(call, used);
        let status = if used.status == "failed" { "failed" } else { "completed" };
        self.complete(self.calls[call].job, status).ok()
    }

    fn complete(&mut self, job: usize, status: &'static str) -> Result<Completion, Outcome> {
        if let (true, Some(completion)) = (self.jobs[job].status == status, self.jobs[job].completion) {
            return Ok(completion);
        }
        self.is_not_over(job)?;
        for call in self.calls.iter_mut().filter(|call| call.job == job && call.status == "open") {
            call.status = "cancelled";
        }
        let calls: Vec<Call> = self.calls.iter().filter(|call| call.job == job).copied().collect();
        let count = |status| calls.iter().filter(|call| call.status == status).count() as i64;
        let total_tokens = calls.iter().map(|call| call.tokens).sum();
        let cost: i64 = calls.iter().filter_map(|call| call.cost).sum();
        let terms = self.jobs[job].terms;
        self.held -= 1;
        let mut credits_charged = 0;
        if status == "completed" && count("failed") == 0 {
            let (used, unit) = match terms.billing {
                Billing::Job => (1, 1),
                Billing::Usd { credits_per_dollar } => (cost * credits_per_dollar, 1_000_000),
                Billing::Tokens { tokens_per_credit } => (total_tokens, tokens_per_credit),
            };
            credits_charged = ((used + unit - 1) / unit).max(1);
            let before = self.jobs.iter().filter(|job| job.charged() > 0).count() as i64;
            self.jobs[job].revenue = match terms.pricing {
                Pricing::None => None,
                Pricing::Flat(price) => Some(i128::from(price) * 100),
                Pricing::Markup { percent } => Some(i128::from(cost) * i128::from(100 + percent)),
                Pricing::Tiered(tiers) => tiers
                    .iter()
                    .find(|tier| tier.0.is_none_or(|up_to| before < up_to))
                    .map(|tier| i128::from(tier.1) * 100),
            };
            self.post(0, credits_charged);
        }
        let completion = Completion {
            total_calls: calls.len() as i64,
            successful_calls: count("succeeded"),
            failed_calls: count("failed"),
            unpriced_calls: calls.iter().filter(|call| call.cost.is_none()).count() as i64,
            total_tokens,
            credits_charged,
            credits_remaining: self.allocated - self.used,
        };
        (self.jobs[job].status, self.jobs[job].completion) = (status, Some(completion));
        Ok(completion)
    }

    fn delete(&mut self) {
        if self.deleted {
            return;
        }
        self.sweep();
        for job in 0..self.jobs.len() {
            if self.jobs[job].is_open() {
                self.complete(job, "cancelled").expect("it is not overdue after the sweep");
            }
        }
        self.refill = None;
        self.deleted = true;
    }
}

fn refused(sqlstate: &'static str, message_ends: String) -> Outcome {
    Outcome::Refused { sqlstate, message_ends }
}
