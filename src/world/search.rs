//! A search that its caller drives, for costs that are told from outside: of JavaScript's models, which the search would else have to wait for.

use std::cell::Cell;
use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use super::{Candidates, Plan, Planner, Slopes};
use crate::rng::Stream;
use crate::{Error, Result};

/// A search in progress.
pub struct Search {
    /// The planner's own search, which stops where it asks for costs. None when it has ended.
    running: Option<Pin<Box<dyn Future<Output = Result<Plan>>>>>,
    desk: Rc<Desk>,
}

/// Where the search leaves what it asks, and finds what it is told.
#[derive(Default)]
struct Desk {
    asked: Cell<Option<Candidates>>,
    told: Cell<Option<Slopes>>,
}

/// How far a search is.
#[derive(Clone, Debug, PartialEq)]
pub enum Progress {
    /// The costs of these are wanted.
    Round(Candidates),
    /// It has ended.
    Done(Plan),
}

impl Search {
    /// A search from `start [horizon, action]`, or from 0. The same `seed` makes the samples of a world model's search.
    pub fn new(planner: Planner, start: Option<Vec<f64>>, seed: u64) -> Self {
        let desk = Rc::<Desk>::default();
        let own = Rc::clone(&desk);
        let running = async move {
            let mut random = Stream::new(seed, "plan", 0);
            let cost = async |candidates: &Candidates| {
                own.asked.set(Some(candidates.clone()));
                let told = |_: &mut Context| own.told.take().map_or(Poll::Pending, Poll::Ready);
                Ok(poll_fn(told).await)
            };
            planner.plan(start.as_deref(), &mut random, cost).await
        };
        Self {
            running: Some(Box::pin(running)),
            desk,
        }
    }

    /// Goes on to the next round, with what the candidates of the last one cost.
    ///
    /// # Errors
    /// Those of [`Planner::plan`], which end the search; [`Error::BadInput`] where it has ended, or is told nothing though it asked.
    pub fn proceed(&mut self, told: Option<Slopes>) -> Result<Progress> {
        let Some(running) = &mut self.running else {
            return Err(Error::BadInput("this search has ended".into()));
        };
        self.desk.told.set(told);
        match running
            .as_mut()
            .poll(&mut Context::from_waker(Waker::noop()))
        {
            Poll::Pending => {
                let asked = self.desk.asked.take();
                let asked = asked.ok_or_else(|| {
                    Error::BadInput("a search goes on when it is told costs".into())
                });
                asked.map(Progress::Round)
            }
            Poll::Ready(plan) => {
                self.running = None;
                plan.map(Progress::Done)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{now, squares_from};
    use super::super::{Cem, PlanOptions};
    use super::*;

    fn planner() -> Planner {
        let options = PlanOptions {
            horizon: Some(2),
            iterations: Some(4),
            ..PlanOptions::default()
        };
        options.planner(Cem::lewm(2), 1.0).unwrap()
    }

    fn slopes(costs: Vec<f32>) -> Slopes {
        Slopes {
            costs,
            gradients: Vec::new(),
        }
    }

    #[test]
    fn it_is_the_search_that_drives_itself() {
        let cost = squares_from(&[0.7, -1.2, 0.1, 2.0]);
        let mut random = Stream::new(6, "plan", 0);
        let own = async |c: &Candidates| Ok(slopes(cost(c)));
        let wanted = now(planner().plan(Some(&[0.5; 4]), &mut random, own)).unwrap();
        let mut search = Search::new(planner(), Some(vec![0.5; 4]), 6);
        let (mut told, mut rounds) = (None, 0);
        let plan = loop {
            match search.proceed(told.take()).unwrap() {
                Progress::Round(candidates) => told = Some(slopes(cost(&candidates))),
                Progress::Done(plan) => break plan,
            }
            rounds += 1;
        };
        assert_eq!((plan, rounds), (wanted, 4));
        assert_eq!(search.proceed(None).unwrap_err().code(), "bad-input");
    }

    #[test]
    fn it_ends_with_what_is_wrong() {
        let mut search = Search::new(planner(), Some(vec![0.0]), 0);
        assert_eq!(search.proceed(None).unwrap_err().code(), "bad-input");
        let mut search = Search::new(planner(), None, 0);
        assert!(matches!(search.proceed(None), Ok(Progress::Round(_))));
        assert_eq!(search.proceed(None).unwrap_err().code(), "bad-input");
        let few = search.proceed(Some(slopes(vec![1.0])));
        assert_eq!(few.unwrap_err().code(), "bad-input");
    }
}
