//! The loop: whose turn it is, at what time, and the two phases of a world.

use std::panic::{AssertUnwindSafe, catch_unwind};

use hoststack::{Actor, Answer, Query};

use super::pokes::SLACK_US;
use super::world::World;

/// Steps without a moment in which nobody has anything to do, that no world needs (one that moves 20 000 bytes through
/// windows of one byte needs 300 000).
const STEPS_BUSY_MAX: u64 = 2_000_000;
/// Pokes added when too little has happened, at most.
const MORE_POKES_MAX: u64 = 400;
/// Connects that a world makes at least.
pub(crate) const CONNECTS_MIN: u64 = 50;
/// Kinds of faults that strike at least.
pub(crate) const FAULTS_MIN: usize = 2;
/// Time that the longest of connects, detaches and their slack take, in microseconds.
const QUIESCE_US: u64 = 120_000_000;

/// What is wrong, in words.
pub(crate) type Wrong = String;

impl World {
    /// The violation that was seen, if one was.
    fn look(&mut self) -> Result<(), Wrong> {
        match self.hub.lock().oracle.take_violation() {
            Some(what) => Err(what),
            None => Ok(()),
        }
    }

    /// Whether an actor has its turn now.
    fn may_step(&self, index: usize) -> bool {
        let turn = &self.turns[index];
        turn.paused_until_us <= self.now_us
            && (turn.deadline_us.is_some_and(|deadline| deadline <= self.now_us)
                || !self.hosts[turn.host].stack.is_asleep(turn.actor))
    }

    /// One step of someone who has something to do. Says whether there was anyone.
    fn turn(&mut self) -> Result<bool, Wrong> {
        let mut able = [0u8; 32];
        let mut count = 0;
        for index in 0..self.turns.len() {
            if self.may_step(index) {
                able[count] = index as u8; // 15 actors at most
                count += 1;
            }
        }
        let awake_villain = self.villains.iter().position(|villain| {
            villain.is_awake() || villain.deadline_us().is_some_and(|deadline| deadline <= self.now_us)
        });
        let total = count + usize::from(awake_villain.is_some());
        if total == 0 {
            return Ok(false);
        }
        let (mut pick, spurious) = {
            let d = &mut self.hub.lock().dice;
            (d.index(total), d.one_of(self.habits.spurious_every).then(|| d.index(self.turns.len())))
        };
        if let (true, Some(villain)) = (pick == count, awake_villain) {
            self.villains[villain].step(self.now_us);
            self.look()?;
            return Ok(true);
        }
        pick = usize::from(able[pick]);
        if let Some(index) = spurious.filter(|index| self.turns[*index].paused_until_us <= self.now_us) {
            pick = index;
        }
        self.step(pick)?;
        Ok(true)
    }

    /// One step of an actor.
    fn step(&mut self, index: usize) -> Result<(), Wrong> {
        let turn = self.turns[index];
        let stack = &mut self.hosts[turn.host].stack;
        let is_due = stack.is_asleep(turn.actor);
        let lag = {
            let s = &mut *self.hub.lock();
            let lag = if is_due { 0 } else { s.dice.below(self.habits.lag_us_max) };
            s.note(index as u64);
            s.note(self.now_us);
            s.trace(|| format!("step {} host {} {:?} lag {lag}", self.steps, turn.host, turn.actor));
            lag
        };
        // A clock goes on between two steps of a thread.
        let now_us = (turn.now_us + 1).max(self.now_us.saturating_sub(lag));
        self.steps += 1;
        let step = catch_unwind(AssertUnwindSafe(|| {
            let step = stack.step(turn.actor, World::instant(now_us));
            stack.check_consistency();
            step
        }));
        let step = step.map_err(|panic| {
            let what = panic
                .downcast_ref::<String>()
                .cloned()
                .or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
            format!("{:?} of host {} panics: {}", turn.actor, turn.host, what.unwrap_or_default())
        })?;
        if step.stopped {
            return Err(format!("{:?} of host {} says that it has stopped", turn.actor, turn.host));
        }
        let turn_now = &mut self.turns[index];
        turn_now.now_us = now_us;
        turn_now.deadline_us = step.next_deadline.map(|at| at.as_micros()).filter(|at| *at != u64::MAX);
        self.hub.lock().note(u64::from(step.worked) ^ turn_now.deadline_us.unwrap_or(0));
        if turn.actor == Actor::Main && !self.hosts[turn.host].waits.is_empty() {
            self.take_answers(turn.host);
        }
        self.look()
    }

    /// When something happens by itself.
    fn next_event_us(&self) -> Option<u64> {
        let actors = self.turns.iter().filter_map(|turn| {
            let asleep = self.hosts[turn.host].stack.is_asleep(turn.actor);
            let at = if asleep { turn.deadline_us } else { Some(self.now_us) };
            at.map(|at| at.max(turn.paused_until_us))
        });
        let villains = self.villains.iter().filter_map(|villain| villain.deadline_us());
        actors.chain(villains).min()
    }

    /// Time passes. Nothing may be overdue then.
    fn advance(&mut self, to_us: u64) -> Result<(), Wrong> {
        if to_us <= self.now_us {
            return Ok(());
        }
        if to_us > self.pause_end_us + SLACK_US {
            self.hub.lock().oracle.overdue(to_us, SLACK_US, self.pause_end_us);
            let late = |host: &super::world::Host| {
                host.waits.iter().find(|wait| wait.until_us + SLACK_US < to_us).map(super::pokes::Wait::name)
            };
            if let Some((host, name)) =
                self.hosts.iter().enumerate().find_map(|(number, host)| Some((number, late(host)?)))
            {
                return Err(format!("{name} of host {host} has no answer at {to_us} us"));
            }
        }
        self.now_us = to_us;
        self.hub.lock().now_us = to_us;
        self.look()
    }

    /// Nobody has anything to do and nothing will happen: nothing may be owed.
    fn check_stillness(&mut self) -> Result<(), Wrong> {
        if let Some(what) = self.hub.lock().oracle.unresolved() {
            return Err(format!("everyone sleeps for ever and {what}"));
        }
        for (number, host) in self.hosts.iter().enumerate() {
            if let Some(wait) = host.waits.first() {
                return Err(format!(
                    "everyone sleeps for ever and {} of host {number} has no answer",
                    wait.name()
                ));
            }
        }
        Ok(())
    }

    /// Things break.
    fn phase_one(&mut self, steps_max: u64) -> Result<(), Wrong> {
        for host in 0..self.hosts.len() {
            let count = 1 + self.hub.lock().dice.below(3);
            for _ in 0..count {
                self.attach(host);
            }
        }
        let (mut pokes, mut added) = (self.habits.pokes, 0);
        let (mut busy, mut iterations) = (0u64, 0u64);
        let mut listened = vec![0; self.hosts.len()];
        while self.steps < steps_max {
            iterations += 1;
            if iterations.is_multiple_of(64) {
                let s = &mut *self.hub.lock();
                self.links.iter_mut().for_each(|link| link.look(s));
            }
            // Every application that is attached first of all listens somewhere.
            for (host, listened) in listened.iter_mut().enumerate() {
                if *listened < self.hosts[host].apps.len() {
                    *listened += 1;
                    self.listen_everywhere(host, *listened - 1);
                    self.poke_listens(host, *listened - 1, 4);
                }
            }
            if pokes == 0 {
                if self.has_happened_enough() || added >= MORE_POKES_MAX {
                    break;
                }
                pokes += 10;
                added += 10;
            }
            let pokes_now = self.hub.lock().dice.one_of(self.habits.poke_every);
            if pokes_now {
                pokes -= 1;
                self.poke();
                self.look()?;
                continue;
            }
            busy += 1;
            if busy > STEPS_BUSY_MAX {
                return Err(format!("{busy} steps in a row and someone has always something to do"));
            }
            if self.turn()? {
                let drift = {
                    let d = &mut self.hub.lock().dice;
                    d.below(self.habits.step_us + 1)
                        + if d.one_of(self.habits.drift_every) { d.below(200) } else { 0 }
                };
                self.advance(self.now_us + drift)?;
                continue;
            }
            busy = 0;
            let (pokes_now, jump) = {
                let d = &mut self.hub.lock().dice;
                (d.one_of(3), d.pick(&[100, 10_000, 100_000, 1_000_000]))
            };
            match self.next_event_us() {
                Some(at) if !pokes_now => self.advance(at.min(self.now_us + jump))?,
                Some(_) => {
                    pokes -= 1;
                    self.poke();
                }
                None => {
                    self.check_stillness()?;
                    pokes -= 1;
                    self.poke();
                }
            }
            self.look()?;
        }
        Ok(())
    }

    fn has_happened_enough(&mut self) -> bool {
        let s = &mut *self.hub.lock();
        self.links.iter_mut().for_each(|link| link.look(s));
        s.oracle.requested >= CONNECTS_MIN && s.strikes.kinds() >= FAULTS_MIN
    }

    /// Runs until `done`, at most for `limit_us`; says whether it was.
    fn run_until(&mut self, limit_us: u64, mut done: impl FnMut(&mut World) -> bool) -> Result<bool, Wrong> {
        let end_us = self.now_us + limit_us;
        let mut busy = 0u64;
        loop {
            if done(self) {
                return Ok(true);
            }
            busy += 1;
            if busy > STEPS_BUSY_MAX {
                return Err(format!("{busy} steps in a row and someone has always something to do"));
            }
            if self.turn()? {
                let drift = self.hub.lock().dice.below(self.habits.step_us + 1);
                self.advance(self.now_us + drift)?;
                continue;
            }
            busy = 0;
            match self.next_event_us() {
                Some(at) if at <= end_us => self.advance(at)?,
                next => {
                    if next.is_none() {
                        self.check_stillness()?;
                    }
                    self.advance(end_us)?;
                    return Ok(done(self));
                }
            }
        }
    }

    fn run_for(&mut self, time_us: u64) -> Result<(), Wrong> {
        let end_us = self.now_us + time_us;
        self.run_until(time_us, |world| world.now_us >= end_us)?;
        Ok(())
    }

    fn are_answered(&self) -> bool {
        self.hosts.iter().all(|host| host.waits.is_empty())
    }

    /// The figures of a host, when nobody has anything to do.
    fn figures(&mut self, host: usize) -> Result<Answer, Wrong> {
        self.figures = None;
        self.inspect(host, Query::Summary);
        self.run_until(SLACK_US, |world| world.figures.is_some())?;
        self.figures.take().ok_or_else(|| format!("host {host} does not answer for its figures"))
    }

    /// Things heal, apps finish, everything ends: nothing is owed and nothing is left.
    fn phase_two(&mut self) -> Result<(), Wrong> {
        self.heal();
        self.calm_apps();
        // Every connect has its outcome by its deadline, whatever the other end does.
        let resolved = self.run_until(QUIESCE_US, |world| {
            world.are_answered() && world.hub.lock().oracle.unresolved().is_none()
        })?;
        if !resolved {
            let what =
                self.hub.lock().oracle.unresolved().unwrap_or_else(|| "a request has no answer".to_owned());
            return Err(format!("all is well for two minutes and {what}"));
        }
        let lingers = self.hub.lock().dice.below(2_000_000);
        self.run_for(lingers)?;
        for host in 0..self.hosts.len() {
            while !self.hosts[host].apps.is_empty() {
                self.detach(host, 0);
            }
        }
        if !self.run_until(QUIESCE_US, World::are_answered_now)? {
            return Err("a detach has no answer in two minutes".to_owned());
        }
        // Detaches that apps began themselves are answered to nobody.
        self.run_for(30_000_000)?;
        for host in 0..self.hosts.len() {
            let answer = self.figures(host)?;
            if !answer.apps.is_empty() || answer.main.listeners != 0 || answer.main.messages != 0 {
                return Err(format!("host {host}: all was detached and is still there: {answer:?}"));
            }
            if !answer.leaks.is_clean() {
                return Err(format!("host {host} leaks {:?}: {:?}", answer.leaks, answer.main));
            }
        }
        let time_wait_us = self.hosts.iter().map(|host| host.time_wait_us).max().unwrap_or(0);
        self.run_for(time_wait_us + 2_000_000)?;
        for host in 0..self.hosts.len() {
            let answer = self.figures(host)?;
            if answer.time_wait != 0 || answer.main.tuples != 0 || !answer.leaks.is_clean() {
                return Err(format!(
                    "host {host} holds {} TIME-WAIT records, {} tuples, {:?} after 2 MSL",
                    answer.time_wait, answer.main.tuples, answer.leaks
                ));
            }
        }
        self.knock()?;
        self.hub.lock().oracle.check_end();
        self.look()
    }

    /// Asks for connections where apps listened: no worker may have kept a listener.
    fn knock(&mut self) -> Result<(), Wrong> {
        {
            let s = &mut *self.hub.lock();
            s.is_deaf = true;
            let places: Vec<super::world::Place> =
                s.places.iter().flat_map(|places| places.0.iter().copied()).collect();
            for place in &places {
                for port in 80..84 {
                    super::meddler::knock(s, place.wire_end, place, port);
                }
            }
        }
        self.run_for(SLACK_US)
    }

    fn are_answered_now(&mut self) -> bool {
        self.are_answered()
    }

    /// Runs both phases.
    pub(crate) fn run(&mut self, steps_max: u64) -> Result<(), Wrong> {
        self.phase_one(steps_max)?;
        self.phase_two()
    }
}
