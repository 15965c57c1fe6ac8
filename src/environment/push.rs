//! A disc that pushes a block to a place, as PushT has it, with a square in place of the T: contacts, friction and spin are rapier's. The
//! block rests when nothing pushes it.

use rapier2d::prelude::{ColliderBuilder, PhysicsWorld, RigidBodyBuilder, RigidBodyHandle, Vector};

use super::canvas::{Canvas, Colour};
use super::{Environment, Outcome, admitted};
use crate::Result;
use crate::rng::{Generator, Stream};

/// Width and height of the table.
pub const EXTENT: f64 = 224.0;
/// Half the side of the block.
pub const HALF: f64 = 22.0;
/// Radius of the disc.
pub const RADIUS: f64 = 9.0;
/// The way of a step along each axis, where nothing is in the way.
pub const SPEED: f64 = 4.0;
/// The goal is reached when the middle of the block is nearer to it than this, however it is turned.
pub const REACHED: f64 = 10.0;

/// Pixels of a unit of rapier, whose tolerances are for bodies of about one.
const PIXELS: f64 = 50.0;
/// Steps of the simulation in one of the environment, of rapier's usual 1/60 s.
const SUBSTEPS: usize = 6;
const SUBSTEP: f64 = 1.0 / 60.0;
/// What is left of the speed of what is not pushed after a second is e to minus this: it stops within a step.
const DAMPING: f32 = 30.0;
/// Of the disc against the block: it is not stopped by it.
const HEAVY: f32 = 20.0;
/// Steps of an episode.
const STEPS: usize = 300;

const WHITE: Colour = [1.0; 3];
const BLUE: Colour = [0.25, 0.4, 0.9];
const RED: Colour = [1.0, 0.0, 0.0];

/// The environment.
pub struct Push {
    world: PhysicsWorld,
    disc: RigidBodyHandle,
    block: RigidBodyHandle,
    goal: [f64; 2],
    steps: usize,
}

impl Default for Push {
    /// At the start of the episode with seed 0.
    fn default() -> Self {
        let mut push = Self::laid([0.0; 2], ([0.0; 2], 0.0), [0.0; 2]);
        push.reset(0);
        push
    }
}

fn vector([x, y]: [f64; 2]) -> Vector {
    Vector::new((x / PIXELS) as f32, (y / PIXELS) as f32)
}

fn between(a: [f64; 2], b: [f64; 2]) -> [f64; 2] {
    [b[0] - a[0], b[1] - a[1]]
}

fn length([x, y]: [f64; 2]) -> f64 {
    x.hypot(y)
}

fn picture(disc: [f64; 2], (block, angle): ([f64; 2], f64), side: usize) -> Result<Vec<u8>> {
    let mut canvas = Canvas::new(side, EXTENT, WHITE)?;
    let (sin, cos) = (libm::sin(angle), libm::cos(angle));
    let pixel = EXTENT / side as f64;
    canvas.blend(BLUE, |at| {
        let [x, y] = between(block, at);
        let own = [x * cos + y * sin, y * cos - x * sin];
        let inside = |v: f64| ((HALF - v.abs()) / pixel + 0.5).clamp(0.0, 1.0);
        inside(own[0]) * inside(own[1])
    });
    canvas.line(RED, disc, disc, RADIUS);
    Ok(canvas.bytes())
}

impl Push {
    /// With the disc, the block with its angle (rad), and the goal at these places.
    fn laid(disc: [f64; 2], (block, angle): ([f64; 2], f64), goal: [f64; 2]) -> Self {
        let mut world = PhysicsWorld {
            gravity: Vector::new(0.0, 0.0),
            ..PhysicsWorld::default()
        };
        world.integration_parameters.dt = SUBSTEP as f32;
        let half = EXTENT / 2.0;
        for axis in 0..2 {
            for outside in [-half, EXTENT + half] {
                let mut at = [half; 2];
                at[axis] = outside;
                let wide = (half / PIXELS) as f32;
                // Walls overlap at the corners, so that nothing gets between them.
                let size = [0, 1].map(|i| if i == axis { wide } else { 3.0 * wide });
                world.insert(
                    RigidBodyBuilder::fixed().translation(vector(at)),
                    ColliderBuilder::cuboid(size[0], size[1]),
                );
            }
        }
        let body = |at| {
            RigidBodyBuilder::dynamic()
                .translation(vector(at))
                .can_sleep(false)
        };
        let (disc, _) = world.insert(
            body(disc).lock_rotations(),
            ColliderBuilder::ball((RADIUS / PIXELS) as f32).density(HEAVY),
        );
        let side = (HALF / PIXELS) as f32;
        let (block, _) = world.insert(
            body(block)
                .rotation(angle as f32)
                .linear_damping(DAMPING)
                .angular_damping(DAMPING),
            ColliderBuilder::cuboid(side, side),
        );
        Self {
            world,
            disc,
            block,
            goal,
            steps: 0,
        }
    }

    fn place(&self, body: RigidBodyHandle) -> [f64; 2] {
        let at = self.world.bodies[body].translation();
        [at.x, at.y].map(|v| f64::from(v) * PIXELS)
    }

    /// Where the disc is.
    pub fn disc(&self) -> [f64; 2] {
        self.place(self.disc)
    }

    /// Where the middle of the block is, and its angle in rad.
    pub fn block(&self) -> ([f64; 2], f64) {
        let angle = self.world.bodies[self.block].rotation().angle();
        (self.place(self.block), angle.into())
    }

    /// Where the middle of the block should be.
    pub fn goal(&self) -> [f64; 2] {
        self.goal
    }
}

impl Environment for Push {
    fn action_size(&self) -> usize {
        2
    }

    /// A block and a goal apart from each other and from the walls, the block at any angle, and the disc anywhere where it is not.
    fn reset(&mut self, seed: u64) {
        let random = &mut Stream::new(seed, "push", 0);
        let mut drawn =
            |margin: f64| [0; 2].map(|_| margin + (EXTENT - 2.0 * margin) * random.uniform_f64());
        let block = drawn(3.0 * HALF);
        let goal = std::iter::repeat_with(|| drawn(2.0 * HALF))
            .find(|&g| length(between(block, g)) > 2.0 * HALF);
        let apart = std::f64::consts::SQRT_2 * HALF + RADIUS;
        let disc =
            std::iter::repeat_with(|| drawn(RADIUS)).find(|&d| length(between(block, d)) > apart);
        let angle = std::f64::consts::TAU * random.uniform_f64();
        // An endless search finds one.
        let (goal, disc) = (goal.unwrap_or_default(), disc.unwrap_or_default());
        *self = Self::laid(disc, (block, angle), goal);
    }

    fn step(&mut self, action: &[f64]) -> Result<Outcome> {
        let action = admitted(action, self.action_size())?;
        let speed = SPEED / (SUBSTEPS as f64 * SUBSTEP);
        for _ in 0..SUBSTEPS {
            let velocity = vector([action[0] * speed, action[1] * speed]);
            self.world.bodies[self.disc].set_linvel(velocity, true);
            self.world.step();
        }
        self.steps += 1;
        let terminated = length(between(self.block().0, self.goal)) < REACHED;
        Ok(Outcome {
            reward: f64::from(u8::from(terminated)),
            terminated,
            truncated: self.steps >= STEPS,
        })
    }

    fn observe(&self, side: usize) -> Result<Vec<u8>> {
        picture(self.disc(), self.block(), side)
    }

    /// The block at its goal, upright, and the disc where it is.
    fn observe_goal(&self, side: usize) -> Result<Vec<u8>> {
        picture(self.disc(), (self.goal, 0.0), side)
    }

    /// `[x, y]` of the disc, then of the block, then cosine and sine of the block's angle.
    fn state(&self) -> Vec<f64> {
        let (block, angle) = self.block();
        let turned = [libm::cos(angle), libm::sin(angle)];
        [self.disc(), block, turned].concat()
    }

    /// Around the block to its far side from the goal, and then on.
    fn expert(&self) -> Vec<f64> {
        /// Farther than the corners of the block.
        const AROUND: f64 = 1.6 * HALF + RADIUS;
        /// How far behind it may be at the side, in rad.
        const ASIDE: f64 = 0.35;
        /// How far it goes around at once, in rad.
        const TURN: f64 = 0.5;
        let (block, _) = self.block();
        let away = between(self.goal, block);
        let wanted = libm::atan2(away[1], away[0]);
        let own = between(block, self.disc());
        let at = libm::atan2(own[1], own[0]);
        let tau = std::f64::consts::TAU;
        let left = (wanted - at + tau / 2.0).rem_euclid(tau) - tau / 2.0;
        let aim = if left.abs() < ASIDE {
            // Through the middle, from straight behind.
            let behind = [libm::cos(wanted), libm::sin(wanted)];
            let near = length(own).min(AROUND) - SPEED;
            [0, 1].map(|i| block[i] + behind[i] * near)
        } else {
            let angle = at + left.clamp(-TURN, TURN);
            [
                block[0] + AROUND * libm::cos(angle),
                block[1] + AROUND * libm::sin(angle),
            ]
        };
        let way = between(self.disc(), aim);
        let longest = way[0].abs().max(way[1].abs()).max(SPEED);
        way.map(|v| v / longest).to_vec()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn near(a: [f64; 2], b: [f64; 2], tolerance: f64) {
        assert!(length(between(a, b)) < tolerance, "{a:?} for {b:?}");
    }

    #[test]
    fn a_push_through_the_middle_moves_the_block_as_far_as_the_disc() {
        let mut push = Push::laid([40.0, 112.0], ([100.0, 112.0], 0.0), [200.0, 200.0]);
        // 29 pixels between them.
        for _ in 0..7 {
            push.step(&[1.0, 0.0]).unwrap();
        }
        near(push.disc(), [68.0, 112.0], 0.05);
        let (block, angle) = push.block();
        near(block, [100.0, 112.0], 1e-4);
        assert_eq!(angle, 0.0);
        for _ in 0..10 {
            push.step(&[1.0, 0.0]).unwrap();
        }
        // The disc is at 108, but for what the block holds it back; the block keeps its distance.
        let (block, angle) = push.block();
        near(block, [push.disc()[0] + RADIUS + HALF, 112.0], 1.0);
        assert!(
            push.disc()[0] > 100.0 && angle.abs() < 0.02,
            "{:?} {angle}",
            push.disc()
        );
        // It rests when it is left alone.
        push.step(&[-1.0, 0.0]).unwrap();
        let rests = push.block().0;
        push.step(&[-1.0, 0.0]).unwrap();
        near(push.block().0, rests, 0.2);
    }

    #[test]
    fn a_push_at_the_edge_turns_the_block() {
        // The y axis points down: a push to the right above the middle turns it clockwise as seen, which is a positive angle.
        for (side, sign) in [(-1.0, 1.0), (1.0, -1.0)] {
            let mut push = Push::laid(
                [60.0, 112.0 + side * 16.0],
                ([100.0, 112.0], 0.0),
                [200.0, 200.0],
            );
            for _ in 0..8 {
                push.step(&[1.0, 0.0]).unwrap();
            }
            let angle = push.block().1;
            assert!(sign * angle > 0.1, "{angle}");
        }
    }

    #[test]
    fn nothing_leaves_the_table_or_enters_the_other() {
        let mut random = Stream::new(1, "actions", 0);
        let mut moved = 0.0;
        for seed in 0..10 {
            let mut push = Push::default();
            push.reset(seed);
            let first = push.block().0;
            let mut action = [0.0; 2];
            for step in 0..300 {
                if step % 25 == 0 {
                    let way = between(push.disc(), push.block().0);
                    action = [way[0] / 60.0 + random.uniform_f64() - 0.5, way[1] / 60.0];
                }
                push.step(&action).unwrap();
                let (block, angle) = push.block();
                let disc = push.disc();
                // Contacts give way by a pixel.
                let inside =
                    |v: f64, margin: f64| (margin - 1.0..=EXTENT - margin + 1.0).contains(&v);
                assert!(disc.iter().all(|&v| inside(v, RADIUS)), "{disc:?}");
                assert!(block.iter().all(|&v| inside(v, HALF)), "{block:?}");
                let [x, y] = between(block, disc);
                let (sin, cos) = angle.sin_cos();
                let own = [x * cos + y * sin, y * cos - x * sin];
                let apart = own.map(|v| (v.abs() - HALF).max(0.0));
                assert!(length(apart) > RADIUS - 1.5, "{disc:?} {block:?}");
            }
            moved += length(between(first, push.block().0));
        }
        assert!(moved > 200.0, "{moved}");
    }

    #[test]
    fn the_same_seed_and_actions_lead_to_the_same() {
        let run = || {
            let mut push = Push::default();
            push.reset(3);
            for _ in 0..120 {
                push.step(&push.expert()).unwrap();
            }
            push.state()
        };
        assert_eq!(run(), run());
    }

    #[test]
    fn experts_mostly_arrive() {
        let arrives = |seed| {
            let mut push = Push::default();
            push.reset(seed);
            loop {
                let outcome = push.step(&push.expert()).unwrap();
                if outcome.terminated || outcome.truncated {
                    return outcome.terminated;
                }
            }
        };
        let arrived = (0..40).filter(|&seed| arrives(seed)).count();
        assert!(arrived >= 36, "{arrived} of 40");
    }

    #[test]
    fn the_picture_is_what_lies_there() {
        let push = Push::laid([40.5, 50.5], ([150.5, 120.5], 0.6), [60.5, 170.5]);
        let pixels = push.observe(224).unwrap();
        let at = |pixels: &[u8], x: usize, y: usize| -> [u8; 3] {
            pixels[3 * (y * 224 + x)..][..3].try_into().unwrap()
        };
        let (red, blue, white) = ([255, 0, 0], [64, 102, 230], [255; 3]);
        assert_eq!(
            [
                at(&pixels, 40, 50),
                at(&pixels, 47, 50),
                at(&pixels, 51, 50)
            ],
            [red, red, white]
        );
        // Half the side along the block's axis, which is turned by 0.6 rad from right to down.
        let (sin, cos) = 0.6f64.sin_cos();
        let along = |far: f64| {
            at(
                &pixels,
                (150.5 + far * cos) as usize,
                (120.5 + far * sin) as usize,
            )
        };
        assert_eq!([along(20.0), along(24.0)], [blue, white]);
        let goal = push.observe_goal(224).unwrap();
        assert_eq!([at(&goal, 60, 170), at(&goal, 150, 120)], [blue, white]);
    }
}
