-- The application's own table, as far as syncer is concerned.
CREATE TABLE public.users (id bigint PRIMARY KEY);
INSERT INTO public.users (id) SELECT n FROM generate_series(1, 10000) AS n;
