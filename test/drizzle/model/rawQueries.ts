/** Queries of the film rental that are written wholly by hand. */
import { type SQL, sql } from "drizzle-orm"
import type { Chance } from "../../checker/chance.ts"
import * as schema from "./schema.ts"

const film = (chance: Chance): number => 1 + chance.below(6)
const few = (chance: Chance): number => 1 + chance.below(4)
const customer = (chance: Chance): number => 1 + chance.below(5)

/** All of them. What is not ordered may be answered in any order. */
export const rawQueries: ReadonlyArray<(chance: Chance) => SQL> = [
  (chance) => sql`select id, title from films where id = ${film(chance)}`,
  (chance) => sql`SELECT "f".* FROM "public"."films" AS "f" WHERE "f"."id" = ${film(chance)} /* or true */`,
  (chance) =>
    sql`select f.title, l.name from films f left join languages l on l.id = f.language_id where f.id = ${film(chance)}`,
  (chance) =>
    sql`select f.title, a.first_name from films f, film_actor fa, actors a
      where fa.film_id = f.id and a.id = fa.actor_id and f.id = ${film(chance)}`,
  (chance) => sql`select * from films natural join inventory where id = ${film(chance)}`,
  (chance) =>
    sql`select role from film_actor join archive.reviews using (film_id) where film_id = ${film(chance)} order by role`,
  (chance) => sql`select * from (select language_id as id from films where id = ${film(chance)}) x`,
  (chance) =>
    sql`with recursive above(id, parent_id) as (
        select id, parent_id from categories where id = ${few(chance)}
        union select c.id, c.parent_id from categories c join above on c.id = above.parent_id
      ) select * from above`,
  (chance) =>
    sql`with films as (select 1 as id, 'none' as title) select films.title from films join public.films f using (id)
      where f.id = ${film(chance)}`,
  (chance) =>
    sql`select v.id, (select name from languages l where l.id = v.id) from (values (${few(chance)}::int), (2)) v(id)`,
  () => sql`table languages`,
  (chance) =>
    sql`select d.id from (select f.id, l.id as lid from films f left join languages l on l.id = f.original_language_id) d
      where d.lid is null and d.id = ${film(chance)}`,
  () =>
    sql`select d.id from (select f.id, l.id as lid from films f left join languages l on l.id = f.original_language_id) d
      where d.lid is null`,
  () =>
    sql`select f.id, sum((select count(*) from archive.reviews r where r.film_id = f.id)) over () as n
      from films f order by f.id limit 2`,
  () =>
    sql`select f.id, unnest(array(select fa.actor_id from film_actor fa where fa.film_id = f.id order by 1)) as actor_id
      from films f`,
  (chance) =>
    sql`select fa.actor_id, generate_series(1, length(a.last_name) - 4) as n from film_actor fa
      left join actors a on a.id = fa.actor_id where fa.film_id = ${film(chance)}`,
  (chance) => sql`select f.h from films as f(a, b, c, d, e, f, g, h) where f.a = ${film(chance)}`,
  (chance) =>
    sql`with x(a, b, c, d, e, f, g, h) as (select * from films) select h from x where a = ${film(chance)}`,
  (chance) =>
    sql`select x.h from (select * from films) as x(a, b, c, d, e, f, g, h) where x.a = ${film(chance)}`,
  (chance) => sql`select films from films where id = ${film(chance)}`,
  (chance) => sql`select * from only payments_early p where p.customer_id = ${customer(chance)}`,
  (chance) => sql`select amount from payments where (id, month) = (${film(chance)}, ${few(chance)})`,
  (chance) =>
    sql`select id, row_number() over (partition by language_id order by id) from films where language_id = ${few(chance)}`,
  (chance) =>
    sql`select language_id, rating, count(*) from films where language_id = ${few(chance)}
      group by grouping sets ((language_id), (rating), ())`,
  (chance) => sql`select * from french_films where id = ${film(chance)}`,
  (chance) =>
    sql`select * from open_films o join ${schema.teams} t on t.id = o.id where o.id = ${film(chance)}`,
  (chance) => sql`select title from films where id = ${film(chance)} or id = ${film(chance)} and rate > 1`,
  (chance) => sql`select title from films where not (id <> ${film(chance)})`,
  (chance) => sql`select title from films where id = ${few(chance)} + 1`,
  (chance) => sql`select title from films where ${film(chance)} in (id, language_id)`,
  (chance) => sql`select title from films where id between ${few(chance)} and ${few(chance)}`,
  (chance) => sql`select title from films where (id = ${film(chance)}) is not true`,
  (chance) => sql`select title from films where (id = ${film(chance)}) = true`,
  (chance) => sql`select title from films where case when rate > 1 then id = ${film(chance)} else true end`,
  (chance) =>
    sql`select title from films where id = (select max(film_id) from inventory where store_id = ${few(chance)})`,
  (chance) =>
    sql`select title from films where id = any(select film_id from film_actor where actor_id = ${few(chance)})`,
  (chance) =>
    sql`select title from films where (id, language_id) in (select film_id, category_id from film_category
      where category_id = ${few(chance)})`,
  (chance) => sql`select title from films where code = ${"A"} and id = ${film(chance)}`,
  (chance) =>
    sql`select title from films where rating = 'PG' union all select name from languages where id = ${few(chance)}`,
  (chance) =>
    sql`select c.email, x.n from customers c cross join lateral (select count(*) as n from rentals r
      where r.customer_id = c.id) x where c.id = ${customer(chance)}`,
  (chance) => sql`select email from customers where discount = ${chance.of(["1.5", "1.50", "0"])}::numeric`,
  (chance) => sql`select email from customers where card = ${chance.of(["ab", "ab  "])}::char(4)`,
  (chance) => sql`select email from customers where card = ${chance.of(["ab", "ab  "])}::text`,
  (chance) => sql`select email from customers where email = ${chance.of(["a@x", "b@x"])} limit 1`,
  (chance) =>
    sql`select c.email from customers c left join rentals r on r.customer_id = c.id and r.returned
      where c.id = ${customer(chance)} and r.id is null`,
  (chance) =>
    sql`select f.id from films f left join film_actor fa on fa.film_id = f.id and fa.actor_id = ${few(chance)}
      where fa.film_id is null`,
  (chance) =>
    sql`select s.name, b.name from staff s left join (staff b join stores t on t.id = b.store_id) on b.id = s.reports_to
      where s.id = ${customer(chance)}`,
  (chance) => sql`select exists (select from rentals where customer_id = ${customer(chance)})`,
  (chance) =>
    sql`select array(select actor_id from film_actor where film_id = ${film(chance)} order by actor_id) as cast_of`,
  (chance) =>
    sql`select count(*) filter (where returned) as returned, count(*) as n from rentals where customer_id = ${customer(chance)}`,
  (chance) => sql`select city from stores where visits > ${few(chance)}`,
  () => sql`select 1 as one`,
  (chance) =>
    sql`select * from generate_series(1, 2) g(id) left join notes n on n.id = g.id and n.film_id = ${film(chance)}`
]

/** Those that call functions which read films. */
export const callingQueries: ReadonlyArray<(chance: Chance) => SQL> = [
  (chance) => sql`select films_in(${few(chance)})`,
  (chance) => sql`select views_of(${film(chance)})`,
  (chance) => sql`select s.city, films_in(s.id) from stores s where s.id = ${few(chance)}`
]
