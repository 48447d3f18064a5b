//! What the functions should do, in a few lines of plain Rust: one team, its keys, its jobs and their calls, one
//! operation after another. Revenue is in hundred-millionths of a USD here, LiteLLM's budget in tenths.

use crate::operation::{Billing, Completion, Operation, Outcome, Pricing, RefillMode, Terms, Used};

#[derive(Debug, Clone, Copy)]
pub struct Job {
    pub status: &'static str,
    pub overdue: bool,
    pub terms: Terms,
    pub revenue: Option<i128>,
    /// What completing it answered at first.
    pub completion: Option<Completion>,
    /// What it costs by its terms as far as that is known.
    pub due: i64,
    pub charged: i64,
    pub refunded: i64,
}

#[derive(Debug, Clone, Copy)]
pub struct Call {
    pub job: usize,
    pub status: &'static str,
    pub overdue: bool,
    pub settled: bool,
    pub tokens: i64,
    pub cost: Option<i64>,
    pub delivered: bool,
    /// Whether LiteLLM is asked what it cost.
    pub asked: bool,
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
    pub mode: RefillMode,
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
    /// How often 80 and 100 percent were crossed.
    pub alerts: [i64; 2],
    pub deleted: bool,
    pub keys: Vec<Key>,
    pub jobs: Vec<Job>,
    pub calls: Vec<Call>,
}

impl Job {
    pub fn is_open(&self) -> bool {
        ["pending", "in_progress"].contains(&self.status)
    }
}

/// Every refusal leaves all as it was, also what was overdue.
type Done = Result<Outcome, Outcome>;

impl Model {
    /// A team with one key, these credits and terms.
    pub fn new(credits: i64, floor: Option<i64>, terms: Terms) -> Self {
        Self {
            allocated: credits,
            used: 0,
            held: 0,
            floor,
            terms,
            refill: None,
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
            PriceCall { call, tokens, cost } => Ok(Outcome::Settled(self.price(call, tokens, cost))),
            CompleteJob { key, job, status } => {
                self.key_works(key)?;
                self.complete(job, status).map(|completion| Outcome::Completed(Some(completion)))
            }
            GetBalance => {
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
            Refund { job, credits } => self.refund(job, credits)?,
            AddCredits { amount } => {
                self.exists()?;
                self.post(amount, 0);
            }
            Adjust { change } => {
                self.exists()?;
                self.sweep();
                let available = self.available();
                if change < 0 && self.floor.is_some_and(|floor| available + change < floor) {
                    return Err(refused("LJ005", format!("Required: {}, Available: {available}", -change)));
                }
                self.post(change, 0);
            }
            ConfigureRefill { enabled, amount, period, mode } => {
                self.exists()?;
                self.sweep();
                let due = self.refill.filter(|refill| refill.period == period).map_or(0, |refill| refill.due);
                self.refill = enabled.then_some(Refill { amount, period, mode, due });
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

    /// What LiteLLM's budget for the team is: what the credits are worth that it may use.
    pub fn budget(&self) -> Option<i64> {
        self.floor.map(|floor| (self.allocated - floor).max(0))
    }

    fn sweep(&mut self) {
        for call in self.calls.iter_mut().filter(|call| call.status == "open" && call.overdue) {
            (call.status, call.asked) = ("abandoned", true);
        }
        for job in 0..self.jobs.len() {
            if self.jobs[job].is_open() && self.jobs[job].overdue {
                self.jobs[job].status = "expired";
                self.held -= 1;
                self.charge(job, 0);
            }
        }
        if let Some(Refill { amount, mode, due, .. }) = self.refill {
            for _ in 0..due {
                let remaining = self.allocated - self.used;
                let change = match mode {
                    RefillMode::Add { cap: None } => amount,
                    RefillMode::Add { cap: Some(cap) } => amount.min((cap - remaining).max(0)),
                    RefillMode::ResetTo => amount - remaining,
                };
                self.post(change, 0);
            }
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
        self.jobs.push(Job {
            status: "pending",
            overdue: false,
            terms,
            revenue: None,
            completion: None,
            due: 0,
            charged: 0,
            refunded: 0,
        });
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
        self.calls.push(Call {
            job,
            status: "open",
            overdue: false,
            settled: false,
            tokens: 0,
            cost: None,
            delivered: false,
            asked: false,
        });
        Ok(Outcome::Done)
    }

    fn settle(&mut self, call: usize, Used { status, tokens, cost, last, delivered }: Used) -> bool {
        let number = call;
        let call = &mut self.calls[call];
        if call.settled {
            return false;
        }
        if call.status == "open" {
            call.status = status;
        }
        call.delivered |= delivered.unwrap_or(status == "succeeded");
        call.settled = last;
        call.asked = !last || cost.is_none();
        self.write(number, tokens, cost);
        true
    }

    fn price(&mut self, call: usize, tokens: Option<i64>, cost: Option<i64>) -> bool {
        let number = call;
        let call = &mut self.calls[call];
        if call.status == "open" || call.settled && (!call.asked || cost.is_none()) {
            call.asked = false;
            return false;
        }
        (call.settled, call.asked) = (true, false);
        let tokens = tokens.unwrap_or(call.tokens);
        self.write(number, tokens, cost);
        true
    }

    fn write(&mut self, call: usize, tokens: i64, cost: Option<i64>) {
        let call = &mut self.calls[call];
        let more = cost.unwrap_or(0) - call.cost.unwrap_or(0);
        (call.tokens, call.cost) = (tokens, cost);
        let job = call.job;
        if !self.jobs[job].is_open() {
            self.charge(job, more);
        }
    }

    fn settle_job(&mut self, call: usize, used: Used) -> Option<Completion> {
        self.settle(call, used);
        let status = if ["failed", "refused"].contains(&used.status) { "failed" } else { "completed" };
        self.complete(self.calls[call].job, status).ok()
    }

    fn calls_of(&self, job: usize) -> impl Iterator<Item = &Call> {
        self.calls.iter().filter(move |call| call.job == job)
    }

    fn calls_that(&self, job: usize, status: &str) -> i64 {
        self.calls_of(job).filter(|call| call.status == status).count() as i64
    }

    pub fn has_delivered(&self, job: usize) -> bool {
        self.calls_of(job).any(|call| call.delivered)
    }

    /// Whether it is charged, now that it has ended.
    fn is_charged(&self, job: usize) -> bool {
        let calls = self.calls_of(job).count() as i64;
        let all_refused = calls > 0 && self.calls_that(job, "refused") == calls;
        let Job { status, terms, .. } = self.jobs[job];
        (status == "completed" && self.calls_that(job, "failed") == 0 && !all_refused)
            || (terms.delivered && self.has_delivered(job))
    }

    fn cost(&self, job: usize) -> i64 {
        self.calls_of(job).filter_map(|call| call.cost).sum()
    }

    fn tokens(&self, job: usize) -> i64 {
        self.calls_of(job).map(|call| call.tokens).sum()
    }

    /// What a job that has ended costs by its terms.
    fn due(&self, job: usize) -> i64 {
        if !self.is_charged(job) {
            return 0;
        }
        let (used, unit) = match self.jobs[job].terms.billing {
            Billing::Job => (1, 1),
            Billing::Usd { credits_per_dollar, credits_per_1k_tokens_unpriced } => {
                let unpriced = self.calls_of(job).filter(|call| call.settled && call.cost.is_none());
                let unpriced: i64 = unpriced.map(|call| call.tokens).sum();
                let of_costs = self.cost(job) * credits_per_dollar;
                (of_costs + unpriced * credits_per_1k_tokens_unpriced * 1000, 1_000_000)
            }
            Billing::Tokens { tokens_per_credit } => (self.tokens(job), tokens_per_credit),
        };
        ((used + unit - 1) / unit).max(1)
    }

    /// Charges a job that has ended what it costs now. Its calls have become dearer by `more`.
    fn charge(&mut self, job: usize, more: i64) {
        let (before, due) = (self.jobs[job].due, self.due(job));
        let place = self.jobs.iter().filter(|job| job.charged > 0).count() as i64;
        let cost = if before == 0 { self.cost(job) } else { more };
        let Job { revenue, terms, .. } = &mut self.jobs[job];
        if let Pricing::Markup { percent } = terms.pricing
            && due > 0
        {
            *revenue = Some(revenue.unwrap_or(0) + i128::from(cost) * i128::from(100 + percent));
        } else if before == 0 && due > 0 {
            *revenue = match terms.pricing {
                Pricing::None | Pricing::Markup { .. } => None,
                Pricing::Flat(price) => Some(i128::from(price) * 100),
                Pricing::Tiered(tiers) => tiers
                    .iter()
                    .find(|tier| tier.0.is_none_or(|up_to| place < up_to))
                    .map(|tier| i128::from(tier.1) * 100),
            };
        }
        let job = &mut self.jobs[job];
        // No more is refunded than is left.
        let change = (due - before).max(job.refunded - job.charged);
        job.due = before + change;
        job.charged += change.max(0);
        job.refunded += (-change).max(0);
        self.post(0, change);
    }

    fn refund(&mut self, job: usize, credits: Option<i64>) -> Result<(), Outcome> {
        let Job { charged, refunded, .. } = self.jobs[job];
        let credits = credits.unwrap_or(charged - refunded);
        if credits == 0 || credits > charged - refunded {
            let left = format!("the job was charged {charged} credits, {refunded} of which are refunded");
            return Err(refused("LJ017", left));
        }
        self.jobs[job].refunded += credits;
        self.post(0, -credits);
        Ok(())
    }

    /// Whether what a job that has ended is charged can't change any more.
    fn charge_is_final(&self, job: usize) -> bool {
        let Terms { billing, delivered, .. } = self.jobs[job].terms;
        let (by_job, charged) = (billing == Billing::Job, self.is_charged(job));
        // Whoever is not charged may still be, if something is delivered late.
        let can_become_dearer = charged && !by_job;
        let can_become_charged = delivered && !charged;
        if !can_become_dearer && !can_become_charged {
            return true;
        }
        let by_cost = matches!(billing, Billing::Usd { .. });
        self.calls_of(job)
            .all(|call| call.settled && !(call.asked && (by_cost || call.status != "succeeded")))
    }

    fn complete(&mut self, job: usize, status: &'static str) -> Result<Completion, Outcome> {
        if let (true, Some(completion)) = (self.jobs[job].status == status, self.jobs[job].completion) {
            return Ok(Completion {
                credits_charged: self.jobs[job].charged,
                credits_refunded: self.jobs[job].refunded,
                charge_is_final: self.charge_is_final(job),
                ..completion
            });
        }
        self.is_not_over(job)?;
        for call in self.calls.iter_mut().filter(|call| call.job == job && call.status == "open") {
            (call.status, call.asked) = ("cancelled", true);
        }
        self.held -= 1;
        self.jobs[job].status = status;
        self.charge(job, 0);
        let completion = Completion {
            total_calls: self.calls_of(job).count() as i64,
            successful_calls: self.calls_that(job, "succeeded"),
            failed_calls: self.calls_that(job, "failed"),
            refused_calls: self.calls_that(job, "refused"),
            unpriced_calls: self.calls_of(job).filter(|call| call.cost.is_none()).count() as i64,
            total_tokens: self.tokens(job),
            credit_applied: self.jobs[job].charged > 0,
            credits_charged: self.jobs[job].charged,
            credits_refunded: 0,
            charge_is_final: self.charge_is_final(job),
            credits_remaining: self.allocated - self.used,
        };
        self.jobs[job].completion = Some(completion);
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
