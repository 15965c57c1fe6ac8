//! Environments: for these no model is needed.

use wasm_bindgen::prelude::*;

use crate::Error;
use crate::environment::two_rooms::{Breach, breach};
use crate::environment::{Environment, Maze, Outcome, Pendulum, Repeated, TwoRooms};

/// One of the crate's environments, in which each action is carried out several times.
#[wasm_bindgen(js_name = BuiltIn)]
pub struct BuiltIn(Kind);

enum Kind {
    TwoRooms(Repeated<TwoRooms>),
    Maze(Repeated<Maze>),
    Pendulum(Repeated<Pendulum>),
}

impl Kind {
    fn environment(&self) -> &dyn Environment {
        match self {
            Self::TwoRooms(rooms) => rooms,
            Self::Maze(maze) => maze,
            Self::Pendulum(pendulum) => pendulum,
        }
    }

    fn environment_mut(&mut self) -> &mut dyn Environment {
        match self {
            Self::TwoRooms(rooms) => rooms,
            Self::Maze(maze) => maze,
            Self::Pendulum(pendulum) => pendulum,
        }
    }
}

#[wasm_bindgen(js_class = BuiltIn)]
impl BuiltIn {
    /// See `GlueBuiltIn` in `www/src/built-in.ts`, which has checked that the numbers are whole. `cells` are those of a maze, `longest` the steps of
    /// an episode of Two Rooms.
    #[wasm_bindgen(constructor)]
    pub fn new(
        name: &str,
        repeat: usize,
        longest: usize,
        cells: usize,
    ) -> Result<BuiltIn, JsValue> {
        Ok(Self(match name {
            "two-rooms" => Kind::TwoRooms(Repeated::new(TwoRooms::new(longest), repeat)?),
            "maze" => Kind::Maze(Repeated::new(Maze::new(cells)?, repeat)?),
            "pendulum" => Kind::Pendulum(Repeated::new(Pendulum::default(), repeat)?),
            other => return Err(Error::BadInput(format!("there is no environment {other}")).into()),
        }))
    }

    #[wasm_bindgen(js_name = actionSize)]
    pub fn action_size(&self) -> usize {
        self.0.environment().action_size()
    }

    pub fn reset(&mut self, seed: f64) {
        self.0.environment_mut().reset(seed as u64);
    }

    /// `[reward, terminated, truncated]`, the latter two 0 or 1.
    pub fn step(&mut self, action: &[f32]) -> Result<Vec<f64>, JsValue> {
        let action: Vec<f64> = action.iter().map(|&v| v.into()).collect();
        let Outcome {
            reward,
            terminated,
            truncated,
        } = self.0.environment_mut().step(&action)?;
        Ok(vec![reward, terminated.into(), truncated.into()])
    }

    /// What is seen now, or would be at the goal.
    pub fn observe(&self, side: usize, goal: bool) -> Result<Vec<u8>, JsValue> {
        let environment = self.0.environment();
        Ok(match goal {
            true => environment.observe_goal(side)?,
            false => environment.observe(side)?,
        })
    }

    pub fn state(&self) -> Vec<f64> {
        self.0.environment().state()
    }

    pub fn expert(&self) -> Vec<f64> {
        self.0.environment().expert()
    }

    /// The goal of Two Rooms, `[x, y]`.
    pub fn goal(&self) -> Result<Vec<f64>, JsValue> {
        Ok(self.rooms()?.goal().to_vec())
    }

    /// Begins an episode of Two Rooms at a place, with a goal.
    pub fn place(&mut self, x: f64, y: f64, goal_x: f64, goal_y: f64) -> Result<(), JsValue> {
        match &mut self.0 {
            Kind::TwoRooms(rooms) => Ok(rooms.inner_mut().place([x, y], [goal_x, goal_y])?),
            _ => Err(self.unplaced().into()),
        }
    }

    /// Something that cannot happen in Two Rooms, drawn by `seed`: `[start, action, possible, impossible]`, of two numbers each.
    pub fn breach(&self, wall: bool, distance: f64, seed: f64) -> Result<Vec<f64>, JsValue> {
        let Kind::TwoRooms(rooms) = &self.0 else {
            return Err(self.unplaced().into());
        };
        let kind = match wall {
            true => Breach::Wall,
            false => Breach::Teleport(distance),
        };
        let drawn = breach(kind, rooms.times(), seed as u64)?;
        Ok([drawn.start, drawn.action, drawn.possible, drawn.impossible].concat())
    }
}

impl BuiltIn {
    fn rooms(&self) -> Result<&TwoRooms, Error> {
        match &self.0 {
            Kind::TwoRooms(rooms) => Ok(rooms.inner()),
            _ => Err(self.unplaced()),
        }
    }

    fn unplaced(&self) -> Error {
        Error::BadInput("only Two Rooms can be told where an episode begins".into())
    }
}
